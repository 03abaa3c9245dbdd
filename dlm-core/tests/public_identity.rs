//! Which answers may continue what is held: as the documentation of `Identity::agrees` says.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

use dlm_core::{Identity, Validator};

fn weak(mtime: Option<u64>, tag: Option<&str>) -> Validator {
    Validator::Weak { mtime, tag: tag.map(Into::into) }
}

fn agree(a: &Validator, b: &Validator) -> bool {
    let of = |v: &Validator| Identity::new(Some(7), v.clone());
    let there = of(a).agrees(&of(b));
    assert_eq!(there, of(b).agrees(&of(a)), "either side may be first: {a:?} {b:?}");
    there
}

#[test]
fn lengths_must_be_equal_where_both_are_known() {
    let of = |len| Identity::new(len, Validator::Strong("\"a\"".into()));
    for (a, b, want) in [
        (Some(7), Some(7), true),
        (Some(7), Some(8), false),
        (Some(7), None, true),
        (None, Some(7), true),
        (None, None, true),
        (Some(0), None, true),
        (Some(0), Some(1), false),
    ] {
        assert_eq!(of(a).agrees(&of(b)), want, "{a:?} {b:?}");
    }
}

#[test]
fn validators_must_be_of_one_kind_and_equal() {
    let strong = |t: &str| Validator::Strong(t.into());
    let all = [
        strong("\"a\""),
        strong("\"b\""),
        // A strong tag and a weak one of the same text are two things.
        weak(None, Some("\"a\"")),
        weak(None, Some("\"b\"")),
        weak(Some(5), None),
        weak(Some(6), None),
        // A part that one side knows and the other does not is a doubt.
        weak(Some(5), Some("\"a\"")),
        weak(Some(6), Some("\"a\"")),
        weak(None, None),
        Validator::ContentAddressed,
        Validator::Unknown,
    ];
    for (i, a) in all.iter().enumerate() {
        for (j, b) in all.iter().enumerate() {
            assert_eq!(agree(a, b), i == j, "{a:?} {b:?}");
        }
    }
}
