//! Servers that do nothing wrong, in all the forms that takes; and bodies that are encoded.

use std::sync::LazyLock;

use bytes::Bytes;
use dlm_testkit::fixtures;

use crate::harness::*;

scenarios! {
    /// Ranges, a tag, 8 MiB.
    honest_with_ranges = ok(honest).size(8 * MIB);
    one_byte = ok(honest).size(1);
    no_bytes = ok(honest).size(0);
    exactly_four_mebibytes = ok(honest).size(4 * MIB);
    sixteen_connections = ok(honest).size(16 * MIB).flags(&["-x", "16"]);
    no_validators = ok(|q, f| f.first.without_validators().answer(q));
    weak_tag = ok(|q, f| f.first.etag("W/\"v1\"").answer(q));
    no_ranges = ok(|q, f| f.first.ranges(false).answer(q));
    ranges_none = ok(|q, f| f.first.ranges(false).answer(q).header("Accept-Ranges", "none"));
    closes_after_each_answer = ok(|q, f| f.answer(q).close());
    hangs_up_after_each_answer = ok(|q, f| f.answer(q).hang_up()).size(8 * MIB);
    slow_drip = ok(honest).size(64 << 10).rate(16 << 10);
    slow_first_byte = ok(|q, f| f.answer(q).delay(std::time::Duration::from_secs(2)));
    head_is_refused = ok(|q, f| if q.method == "HEAD" { Answer::status(405).header("Allow", "GET") } else { f.answer(q) });
    head_announces_half = ok(|q, f| if q.method == "HEAD" { f.answer(q).content_length((f.len() / 2).to_string()) } else { f.answer(q) });
    chunked = ok(|q, f| f.first.ranges(false).answer(q).chunked(40_000));
    chunked_in_small_pieces = ok(|q, f| f.first.ranges(false).answer(q).chunked(7)).size(64 << 10);
    ends_with_the_connection = ok(|q, f| f.first.ranges(false).answer(q).no_content_length());
    http_1_0 = ok(|q, f| f.first.ranges(false).answer(q).version("HTTP/1.0").hang_up());
    early_hints_first = ok(|q, f| f.answer(q).first(Step::Raw(Bytes::from_static(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"))));

    /// Query, escapes and semicolons arrive as they were given.
    target_arrives_unchanged = ok(|q, f| {
        if q.target == ODD_TARGET { f.answer(q) } else { Answer::status(404) }
    }).path(ODD_TARGET);

    /// A saved file is never unpacked, and so nothing packed is asked for.
    asks_for_identity = ok(honest).and(|b, _| for q in b.server.log() {
        assert!(q.header("accept-encoding").is_none_or(|v| v == "identity"), "{q:?}");
    });

    /// 128 MiB of zeros in 850 KB: saved as it is, in little memory.
    /// A part of what is packed is no part of the file.
    packed_parts = either(|q, f| if q.start() > 0 { f.answer(q).header("Content-Encoding", "gzip") } else { f.answer(q).cut(1_000_000, End::Reset) })
        .flags(&["-x", "4"]).limit(90);
    gzip_bomb = ok(|q, f| f.first.with_data(BOMB.clone()).answer(q).header("Content-Encoding", "gzip"))
        .accept(|_| vec![BOMB.clone()]).says("came packed (gzip)");

    /// A name that says it is packed: no wonder, and no word.
    gzip_by_its_name = ok(|q, f| f.answer(q).header("Content-Encoding", "x-gzip")).path("/file.tar.gz?sig=S3CRET")
        .and(|_, run| assert!(!run.stderr.contains("packed"), "{run:?}"));
    /// What the server calls its packing is the server's own text.
    packed_with_escapes = ok(|q, f| f.first.ranges(false).answer(q).header("Content-Encoding", b"a\x9b\xc2\x9b31m".to_vec()))
        .path("/file.bin?sig=S3CRET").says("came packed").and(|b, run| judge::no_leak(b, run, "S3CRET"));

    /// The framing is whole; that the packed stream in it ends early is not our affair.
    gzip_that_ends_early = either(|q, f| cut_gzip(f).answer(q).header("Content-Encoding", "gzip"))
        .accept(|f| vec![cut_gzip(f).data().clone()]);

    /// Packed at first, plain under the same tag later: two representations, never mixed.
    gzip_then_identity = either(|q, f| match q.start() {
        0 => f.first.with_data(f.second.data().clone()).answer(q).header("Content-Encoding", "gzip"),
        _ => f.answer(q),
    }).accept_both().rate(RATE).killed(0.47);
}

/// Made once, and not on the server's own threads.
static BOMB: LazyLock<Bytes> = LazyLock::new(|| fixtures::gzip_bomb(128 << 20));

const ODD_TARGET: &str = "/a%20b%2Fc;v=1/file.bin?x=1%262&sig=a%2Bb%3D&u=http://h/p";
/// Slow enough that a run can be killed in the middle.
const RATE: u64 = 1_400_000;

fn cut_gzip(f: &Files) -> Resource {
    let whole = fixtures::gzip_bomb(1 << 20);
    f.first.with_data(whole.slice(..whole.len() - 900)).ranges(false)
}
