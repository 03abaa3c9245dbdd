//! The numbers, as a table.

use super::Case;
use super::measure::Took;

/// A line a case: medians, and how far the runs lie apart.
pub(super) fn text(results: &[(&Case, Vec<Took>)]) -> String {
    let mut text =
        format!("{:<21}{:<6}{:<26}{:<26}peak RSS, MiB\n", "program", "file", "wall, s", "user + system, s");
    for (case, runs) in results {
        let column = |digits: usize, value: fn(&Took) -> f64| {
            spread(&runs.iter().map(value).collect::<Vec<_>>(), digits)
        };
        let line = format!(
            "{:<21}{:<6}{:<26}{:<26}{}",
            case.label(),
            case.size.text(),
            column(4, |t| t.wall.as_secs_f64()),
            column(4, |t| t.cpu.as_secs_f64()),
            column(1, |t| t.peak_kib as f64 / 1024.0),
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push_str("each: median (least..most)\n");
    text
}

/// `median (least..most)`; a dash where there is nothing.
fn spread(values: &[f64], digits: usize) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else { return "-".into() };
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    format!("{:.digits$} ({least:.digits$}..{most:.digits$})", f64::midpoint(low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        assert_eq!(spread(&[3.0, 1.0, 2.0], 1), "2.0 (1.0..3.0)");
        assert_eq!(spread(&[4.0, 1.0, 2.0, 10.0], 2), "3.00 (1.00..10.00)");
        assert_eq!(spread(&[], 3), "-");
    }

    #[test]
    fn a_peer_that_was_not_found_has_no_numbers() {
        let results: Vec<(&Case, Vec<Took>)> = super::super::CASES.iter().map(|c| (c, Vec::new())).collect();
        let text = text(&results);
        assert_eq!(text.lines().count(), 9, "{text}");
        assert!(text.lines().any(|l| l.starts_with("aria2c -x4 -s4 -k1M")), "{text}");
    }
}
