//! Rates: `500K`, `2M`, `1.5MiB`.

/// Reads a rate in bytes a second. K is 1024. 0 means that there is no limit.
///
/// At most nine digits after the point are looked at; what is left of a byte is dropped.
pub(crate) fn rate(text: &str) -> Result<u64, String> {
    let wrong =
        || "not a rate; write a number with K, M, G or T behind it, such as 500K or 1.5MiB".to_owned();
    let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let shift = match unit.to_ascii_lowercase().strip_suffix("/s").unwrap_or(&unit.to_ascii_lowercase()) {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || part.contains('.') || (number.contains('.') && part.is_empty()) {
        return Err(wrong());
    }
    let too_much = || "more than this program can count".to_owned();
    let bytes = whole.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift)).ok_or_else(too_much)?;
    let digits = &part[..part.len().min(9)];
    let fraction = if digits.is_empty() { 0 } else { digits.parse::<u64>().map_err(|_| wrong())? };
    let scale = 10_u128.pow(digits.len() as u32);
    let more = (u128::from(fraction) << shift) / scale;
    let sum = bytes.checked_add(more as u64).ok_or_else(too_much)?;
    if sum == 0 && (fraction != 0 || part.bytes().any(|b| b != b'0')) {
        return Err("less than a byte a second".to_owned());
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::rate;

    #[test]
    fn reads_rates() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("500K", 512_000),
            ("500k", 512_000),
            ("2M", 2 << 20),
            ("1.5MiB", 3 << 19),
            ("1.5MB/s", 3 << 19),
            ("1G", 1 << 30),
            ("0.5T", 1 << 39),
            ("100B", 100),
            ("0.3333333333333333333333K", 341),
        ] {
            assert_eq!(rate(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "K",
            ".",
            ".5K",
            "5.",
            "1.2.3",
            "-1",
            "+1",
            "1e3",
            "5 K",
            "5Q",
            "99999999999999999999",
            "20000000T",
            "0.1",
            "٣",
        ] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
