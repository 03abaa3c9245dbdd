//! The file becomes another one while it is downloaded: all old or all new, never a mix.

use crate::harness::*;

/// The second version is there once 30 % of the first were served.
fn now<'a>(q: &Request, f: &'a Files) -> &'a Resource {
    if q.served * 10 >= f.len() * 3 { &f.second } else { &f.first }
}

fn resumed(s: Scenario) -> Scenario {
    s.accept_both().rate(1_400_000).killed(0.47)
}

scenarios! {
    changes = resumed(either(|q, f| now(q, f).answer(q)));
    changes_and_conditions_are_ignored = resumed(either(|q, f| now(q, f).conditions(false).answer(q)));
    changes_with_dates_only = resumed(either(|q, f| now(q, f).etag(None).answer(q)));
    changes_with_dates_only_and_conditions_are_ignored = resumed(either(|q, f| now(q, f).etag(None).conditions(false).answer(q)));
    changes_with_tags_only = resumed(either(|q, f| now(q, f).last_modified(None).answer(q)));
    changes_under_weak_tags = resumed(either(|q, f| {
        let tag = if q.served * 10 >= f.len() * 3 { "W/\"v2\"" } else { "W/\"v1\"" };
        now(q, f).etag(tag).conditions(false).answer(q)
    }));
    shrinks = resumed(either(|q, f| now(q, f).answer(q)).second_size(600 << 10));
    shrinks_and_conditions_are_ignored = resumed(either(|q, f| now(q, f).conditions(false).answer(q)).second_size(600 << 10));
    /// Only the total tells.
    grows_without_validators = resumed(either(|q, f| now(q, f).without_validators().answer(q)).second_size(4 * MIB));
    /// Only the total tells, and it is less than what is on disk already.
    shrinks_without_validators = resumed(either(|q, f| now(q, f).without_validators().answer(q)).second_size(600 << 10));
    becomes_empty = resumed(either(|q, f| now(q, f).answer(q)).second_size(0));
    /// Two servers behind one name that do not agree.
    versions_alternate = either(|q, f| if q.nth.is_multiple_of(2) { f.first.answer(q) } else { f.second.answer(q) })
        .accept_both().rate(3 * MIB).flags(&["-x", "4"]);
    versions_alternate_without_conditions = either(|q, f| {
        if q.nth.is_multiple_of(2) { f.first.conditions(false).answer(q) } else { f.second.conditions(false).answer(q) }
    }).accept_both().rate(3 * MIB).flags(&["-x", "4"]);
    /// Changes with every answer: there is no version to be had with several connections.
    changes_all_the_time = either(|q, f| {
        f.first.without_validators().answer(q).header("ETag", format!("\"{}\"", q.nth))
    }).flags(&["-x", "4"]).rate(3 * MIB);
}
