//! Headers that make no sense, never end, or try to reach the terminal.

use std::os::unix::fs::MetadataExt as _;

use bytes::Bytes;

use crate::harness::*;

const ESCAPES: &str = "\u{1b}]0;pwned\u{7}\u{1b}[2J\u{9b}31m";

/// The whole file under these values of `Content-Length`.
fn length(values: &'static [&'static str]) -> impl Fn(&Request, &Files) -> Answer {
    move |q, f| {
        let a = f.first.ranges(false).answer(q).hang_up();
        values.iter().fold(a, |a, v| a.content_length(*v))
    }
}

/// A head of this, then the file.
fn head(lines: &'static [u8]) -> impl Fn(&Request, &Files) -> Answer {
    move |_, f| {
        let mut all = b"HTTP/1.1 200 OK\r\n".to_vec();
        all.extend_from_slice(lines);
        all.extend_from_slice(format!("Content-Length: {}\r\n\r\n", f.len()).as_bytes());
        Answer::script(vec![Step::Raw(Bytes::from(all)), Step::Body(f.data().clone())])
    }
}

/// A head of so many lines like this one.
fn flood(line: &'static [u8], times: u64) -> impl Fn(&Request, &Files) -> Answer {
    move |_, f| {
        Answer::script(vec![
            Step::Raw(Bytes::from_static(b"HTTP/1.1 200 OK\r\n")),
            Step::Flood(Bytes::from_static(line), times),
            Step::Raw(Bytes::from(format!("Content-Length: {}\r\n\r\n", f.len()))),
            Step::Body(f.data().clone()),
        ])
    }
}

/// An announced length is no reason to fill a disk.
fn no_giant(b: &Bench, _: &Run) {
    for path in [b.part(), b.out.clone()] {
        let used = std::fs::metadata(path).map_or(0, |m| m.blocks() * 512);
        assert!(used < 100 * MIB, "{used} bytes of disk");
    }
}

static LONG: [u8; 100_000] = [b'x'; 100_000];
static PAD: [u8; 8000] = {
    let mut line = [b'y'; 8000];
    (line[0], line[1], line[7998], line[7999]) = (b'X', b':', b'\r', b'\n');
    line
};

scenarios! {
    length_beyond_the_file_system = refused_as(&[3, 5, 6, 9], length(&["9223372036854775807"])).limit(90).and(no_giant);
    length_of_a_tebibyte = refused_as(&[3, 5, 6, 9], length(&["1099511627776"])).limit(90).and(no_giant);
    length_beyond_64_bits = refused_as(&[3, 9], length(&["18446744073709551616"])).limit(60);
    length_negative = refused_as(&[3, 9], length(&["-1"])).limit(60);
    length_with_a_sign = refused_as(&[3, 9], length(&["+3145728"])).limit(60);
    length_in_hex = refused_as(&[3, 9], length(&["0x300000"])).limit(60);
    length_empty = either(length(&[""]));
    length_twice_the_same = either(length(&["3145728", "3145728"]));
    length_twice_and_different = refused_as(&[3, 9], length(&["3145728", "100000"])).limit(60);
    length_list_that_differs = refused_as(&[3, 9], length(&["100000, 3145728"])).limit(60);
    length_zero_with_a_body = either(|q, f| f.first.ranges(false).answer(q).content_length("0").hang_up()).accept(|f| vec![f.data().clone(), Bytes::new()]);

    forty_megabytes_of_head = refused_as(&[3, 9], flood(&PAD, 5000)).limit(60);
    three_thousand_cookies = either(flood(b"Set-Cookie: c=xxxxxxxxxxxxxxxxxxxxxxxxxxxx; Path=/\r\n", 3000));
    one_line_of_100_kilobytes = either(|q, f| f.answer(q).header("X-Long", LONG));
    endless_status_line = refused_as(&[3, 9], |_, _| Answer::script(vec![
        Step::Raw(Bytes::from_static(b"HTTP/1.1 200 ")), Step::Flood(Bytes::from_static(&LONG), 400),
    ])).limit(60);
    folded_line = either(head(b"X-F: a\r\n b\r\n\tc\r\n"));
    line_without_a_colon = either(head(b"this is no header\r\n"));
    name_with_a_space = either(head(b"Content-Length : 5\r\n"));
    name_empty = either(head(b": x\r\n"));
    nul_in_a_value = either(head(b"X-Nul: a\0b\r\n"));
    bytes_that_are_no_text = either(head(b"X-Raw: \xff\xfe\x80\r\nETag: \"\xe4\"\r\n"));
    bare_line_feeds = either(|_, f| Answer::script(vec![
        Step::Raw(Bytes::from(format!("HTTP/1.1 200 OK\nContent-Length: {}\n\n", f.len()))), Step::Body(f.data().clone()),
    ]));
    bare_carriage_return = either(head(b"X-A: b\rContent-Length: 7\r\n"));
    tag_without_quotes = either(|q, f| f.first.etag("v1").answer(q)).rate(1_400_000).killed(0.47);
    tag_of_60_kilobytes = either(|q, f| f.first.etag(None).answer(q).header("ETag", format!("\"{}\"", "t".repeat(60_000)))).rate(1_400_000).killed(0.47);
    date_that_is_none = ok(|q, f| f.first.last_modified("yesterday, more or less").answer(q));
    date_in_the_far_future = ok(|q, f| f.first.last_modified("Fri, 31 Dec 9999 23:59:59 GMT").answer(q));
    date_before_the_epoch = ok(|q, f| f.first.last_modified("Mon, 01 Jan 1601 00:00:00 GMT").answer(q));

    escapes_in_an_error_page = refused(4, |_, _| Answer::status(403).body(ESCAPES));
    escapes_in_the_reason = refused_as(&[3, 4, 9], |_, _| Answer::status(404).reason(ESCAPES)).limit(60);
    escapes_in_a_header = either(|q, f| f.answer(q).header("Server", ESCAPES));
    escapes_in_the_challenge = refused_as(&[3, 4, 9], |_, _| Answer::status(401).header("WWW-Authenticate", format!("Basic realm=\"{ESCAPES}\""))).limit(60);
    escapes_in_the_range = either(|q, f| f.answer(q).content_range(|a, b, t| format!("bytes {a}-{b}/{t}{ESCAPES}"))).flags(&["-x", "4"]);
}
