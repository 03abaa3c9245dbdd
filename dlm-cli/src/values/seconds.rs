//! Times: `20`, `2.5`.

use std::time::Duration;

/// The longest time that makes sense as a limit: a day.
const MOST: u64 = 24 * 60 * 60;

/// Reads decimal seconds: more than 0, at most a day.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "not a number of seconds, such as 20 or 2.5".to_owned();
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return Err(wrong());
    }
    let out_of_bounds = || format!("not more than 0 and at most {MOST} seconds");
    let whole = whole.parse::<u64>().map_err(|_| out_of_bounds())?;
    let nanos = format!("{:0<9}", &part[..part.len().min(9)]).parse::<u32>().map_err(|_| wrong())?;
    let time = Duration::new(whole, nanos);
    if time.is_zero() || time > Duration::from_secs(MOST) { Err(out_of_bounds()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::seconds;

    #[test]
    fn reads_seconds() {
        for (text, millis) in
            [("20", 20_000), ("2.5", 2_500), ("0.001", 1), ("1.0009999999999", 1_000), ("86400", 86_400_000)]
        {
            assert_eq!(seconds(text).map(|d| d.as_millis()), Ok(millis), "{text}");
        }
        assert_eq!(seconds("0.000000001"), Ok(Duration::from_nanos(1)));
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "0",
            "0.0",
            "1e3",
            "inf",
            "NaN",
            "1s",
            "1,5",
            "86401",
            "86400.1",
            "9999999999999999999999",
        ] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
