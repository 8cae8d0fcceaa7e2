//! Sizes, durations, processors and origins as they are typed, and sizes as they are shown.

use std::time::Duration;

/// Reads a size: `512M`, `1.5G`, `4096`. A unit is a power of 1024, with or without `B` or `iB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(format!("`{unit}` is no unit of size; use K, M, G or T")),
    };
    let no_number = || "a size is a number and a unit, such as 512M".to_owned();
    if !number.contains('.') {
        let whole: u64 = number.parse().map_err(|_| no_number())?;
        return whole
            .checked_mul(1 << shift)
            .ok_or_else(|| "this is more than there is anywhere".to_owned());
    }
    let number: f64 = number.parse().map_err(|_| no_number())?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a fraction of a byte does not matter, and the cast saturates"
    )]
    Ok((number * (1_u64 << shift) as f64) as u64)
}

/// Shows a size with the largest unit that leaves a number of at least one: `512M`, `1.5G`.
pub fn show_size(bytes: u64) -> String {
    let mut unit = "B";
    let mut scale = 1_u64;
    for next in ["K", "M", "G", "T"] {
        if bytes < scale * 1024 {
            break;
        }
        (unit, scale) = (next, scale * 1024);
    }
    if bytes.is_multiple_of(scale) {
        format!("{}{unit}", bytes / scale)
    } else {
        format!("{}.{}{unit}", bytes / scale, bytes % scale * 10 / scale)
    }
}

/// Reads a duration: `30s`, `10m`, `1h 30m`, `250ms`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "a duration is a number and a unit, such as 250ms, 30s, 10m or 1h".to_owned())
}

/// Shows a duration in whole units, the largest two: `1h 30m`.
pub fn show_duration(duration: Duration) -> String {
    let shown = if duration < Duration::from_secs(1) {
        Duration::from_millis(u64::from(duration.subsec_millis()))
    } else {
        Duration::from_secs(duration.as_secs())
    };
    let text = humantime::format_duration(shown).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A limit in time that can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switchable {
    /// There is none.
    Off,
    /// So long.
    After(Duration),
}

/// Reads a duration, or `off`.
pub fn parse_switchable(text: &str) -> Result<Switchable, String> {
    if text == "off" {
        return Ok(Switchable::Off);
    }
    parse_duration(text).map(Switchable::After)
}

/// Reads a number of processors, `1.5` for one and a half, as thousandths.
pub fn parse_cpus(text: &str) -> Result<u32, String> {
    let cpus: f64 = text
        .parse()
        .map_err(|_| "a number of processors is one such as 2 or 0.5".to_owned())?;
    if !(0.05..=4096.0).contains(&cpus) {
        return Err("at least 0.05 and at most 4096 processors".to_owned());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range was checked"
    )]
    Ok((cpus * 1000.0).round() as u32)
}

/// Reads an origin as a browser sends it: `https://notebook.example`, `http://localhost:3000`.
pub fn parse_origin(text: &str) -> Result<String, String> {
    let origin = text.to_ascii_lowercase();
    let rest = origin
        .strip_prefix("https://")
        .or_else(|| origin.strip_prefix("http://"));
    match rest {
        Some(host)
            if !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']) && host != "*" =>
        {
            Ok(origin)
        }
        _ => Err(
            "an origin is a scheme and a host, without a path, such as https://notebook.example"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("512M", 512 << 20),
            ("512MB", 512 << 20),
            ("512MiB", 512 << 20),
            ("2g", 2 << 30),
            ("1.5G", 3 << 29),
            ("1 T", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in [
            "",
            "M",
            "12Q",
            "-1",
            "1.2.3",
            "99999999999999999999",
            "16777216T",
        ] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_shown_size_is_short() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1K"),
            (512 << 20, "512M"),
            (3 << 29, "1.5G"),
        ] {
            assert_eq!(show_size(bytes), text);
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "30", "-1s", "1 fortnight"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_shown_duration_has_two_units_at_most() {
        for (ms, text) in [
            (5_400_000, "1h 30m"),
            (90_061_001, "1day 1h"),
            (250, "250ms"),
            (1_900, "1s"),
        ] {
            assert_eq!(show_duration(Duration::from_millis(ms)), text);
        }
        assert_eq!(show_duration(Duration::from_nanos(844_477_000)), "844ms");
    }

    #[test]
    fn processors_are_counted_in_thousandths() {
        assert_eq!(parse_cpus("1.5"), Ok(1500));
        assert_eq!(parse_cpus("0.05"), Ok(50));
        for bad in ["0", "-1", "NaN", "inf", "two"] {
            assert!(parse_cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_origin_has_no_path() {
        assert_eq!(
            parse_origin("HTTPS://Notebook.Example"),
            Ok("https://notebook.example".to_owned())
        );
        assert!(parse_origin("http://localhost:3000").is_ok());
        for bad in [
            "*",
            "localhost",
            "https://",
            "https://a/b",
            "ftp://a",
            "https://u@a",
        ] {
            assert!(parse_origin(bad).is_err(), "{bad}");
        }
    }
}
