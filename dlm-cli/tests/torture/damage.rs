//! What is on disk was damaged between two runs. It is found, and never trusted.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use dlm_testkit::fixtures;

use crate::harness::*;

fn damaged(how: impl Fn(&mut Bench) + 'static) -> Scenario {
    ok(honest).rate(1_400_000).killed_and(0.5, how)
}

fn cut(path: &Path, percent: u64) {
    let len = std::fs::metadata(path).unwrap().len();
    OpenOptions::new().write(true).open(path).unwrap().set_len(len * percent / 100).unwrap();
}

/// Flips so many bits, where they are depends on the seed.
fn flip(path: &Path, seed: u64, bits: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    for spot in fixtures::bytes(seed, bits * 8).chunks_exact(8) {
        let n = u64::from_le_bytes(spot.try_into().unwrap());
        if !bytes.is_empty() {
            let at = (n >> 3) as usize % bytes.len();
            bytes[at] ^= 1 << (n & 7);
        }
    }
    std::fs::write(path, bytes).unwrap();
}

/// One bit wrong near the start of the partial, where something has surely been written.
fn one_bit_of_the_partial(b: &mut Bench) {
    let file = OpenOptions::new().read(true).write(true).open(b.part()).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 1000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 1000).unwrap();
}

scenarios! {
    partial_is_gone = damaged(|b| std::fs::remove_file(b.part()).unwrap());
    partial_is_empty = damaged(|b| cut(&b.part(), 0));
    partial_is_cut_to_a_tenth = damaged(|b| cut(&b.part(), 10));
    partial_is_cut_to_half = damaged(|b| cut(&b.part(), 50));
    partial_is_longer = damaged(|b| {
        let mut all = std::fs::read(b.part()).unwrap();
        all.extend_from_slice(&fixtures::bytes(5, 5_000_000));
        std::fs::write(b.part(), all).unwrap();
    });
    partial_has_one_wrong_bit = damaged(one_bit_of_the_partial);
    partial_has_wrong_bits_1 = damaged(|b| flip(&b.part(), 1, 3));
    partial_has_wrong_bits_2 = damaged(|b| flip(&b.part(), 2, 300));
    partial_is_garbage = damaged(|b| {
        let len = std::fs::metadata(b.part()).unwrap().len();
        std::fs::write(b.part(), fixtures::bytes(6, len as usize)).unwrap();
    });
    partial_is_zeros = damaged(|b| {
        let len = std::fs::metadata(b.part()).unwrap().len();
        std::fs::write(b.part(), vec![0; len as usize]).unwrap();
    });
    partial_is_of_another_version = damaged(|b| {
        let len = std::fs::metadata(b.part()).unwrap().len() as usize;
        std::fs::write(b.part(), &b.files.second.data()[..len]).unwrap();
    });
    journal_is_gone = damaged(|b| std::fs::remove_file(b.journal()).unwrap());
    journal_is_empty = damaged(|b| cut(&b.journal(), 0));
    journal_is_cut_to_a_third = damaged(|b| cut(&b.journal(), 33));
    journal_is_cut_by_a_byte = damaged(|b| cut(&b.journal(), 99));
    journal_is_garbage = damaged(|b| std::fs::write(b.journal(), fixtures::bytes(9, 65_536)).unwrap());
    journal_is_all_ones = damaged(|b| {
        let len = std::fs::metadata(b.journal()).unwrap().len();
        std::fs::write(b.journal(), vec![0xff; len as usize]).unwrap();
    });
    journal_is_doubled = damaged(|b| {
        let one = std::fs::read(b.journal()).unwrap();
        std::fs::write(b.journal(), [&one[..], &one[..]].concat()).unwrap();
    });
    journal_is_huge = damaged(|b| std::fs::write(b.journal(), vec![b'{'; 80 << 20]).unwrap());
    journal_has_one_wrong_bit_1 = damaged(|b| flip(&b.journal(), 11, 1));
    journal_has_one_wrong_bit_2 = damaged(|b| flip(&b.journal(), 12, 1));
    journal_has_one_wrong_bit_3 = damaged(|b| flip(&b.journal(), 13, 1));
    journal_has_wrong_bits_1 = damaged(|b| flip(&b.journal(), 14, 8));
    journal_has_wrong_bits_2 = damaged(|b| flip(&b.journal(), 15, 8));
    journal_has_wrong_bits_3 = damaged(|b| flip(&b.journal(), 16, 80));
    both_are_damaged = damaged(|b| { flip(&b.part(), 17, 9); flip(&b.journal(), 18, 2); });
    /// An older journal with a newer partial: what it does not know of is fetched again.
    journal_is_older = ok(honest).rate(1_400_000).drive(|b| {
        b.run_until(0.3);
        let old = std::fs::read(b.journal()).unwrap_or_default();
        b.run_until(0.3);
        std::fs::write(b.journal(), old).unwrap();
        b.run()
    });
}
