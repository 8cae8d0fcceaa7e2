//! The `Range` header: which part of a file is wanted. Pure.

/// What a range asks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it.
    Whole,
    /// A part of it, never empty.
    Part {
        /// The first byte.
        start: u64,
        /// How many bytes.
        length: u64,
    },
    /// A part that the file does not have.
    Nothing,
}

/// Reads a `Range` header for a file of `size` bytes. What is not understood asks for the whole file, as RFC 9110 §14.2 says; so does a list of
/// ranges, since sending the whole file answers that too.
pub(crate) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some((unit, spec)) = header.and_then(|header| header.split_once('=')) else {
        return Wanted::Whole;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") || spec.contains(',') {
        return Wanted::Whole;
    }
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Wanted::Whole;
    };
    match (number(first), number(last)) {
        (Number::None, Number::Some(suffix)) => {
            part(size.saturating_sub(suffix), suffix.min(size), size)
        }
        (Number::Some(start), Number::None) => part(start, size.saturating_sub(start), size),
        (Number::Some(start), Number::Some(last)) if start <= last => {
            part(start, (last - start).saturating_add(1), size)
        }
        _ => Wanted::Whole,
    }
}

fn part(start: u64, length: u64, size: u64) -> Wanted {
    if start >= size || length == 0 {
        return Wanted::Nothing;
    }
    Wanted::Part {
        start,
        length: length.min(size - start),
    }
}

enum Number {
    None,
    Some(u64),
    Bad,
}

fn number(text: &str) -> Number {
    match text.trim() {
        "" => Number::None,
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Number::Some(text.parse().unwrap_or(u64::MAX))
        }
        _ => Number::Bad,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_names_a_part() {
        let part = |start, length| Wanted::Part { start, length };
        for (header, expected) in [
            ("bytes=0-9", part(0, 10)),
            ("bytes=10-", part(10, 90)),
            ("bytes=-5", part(95, 5)),
            ("bytes=-500", part(0, 100)),
            ("bytes=90-500", part(90, 10)),
            ("Bytes = 1 - 1", part(1, 1)),
            ("bytes=0-99999999999999999999999", part(0, 100)),
            ("bytes=100-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=9-1", Wanted::Whole),
            ("bytes=a-", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=0-1,5-6", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
            ("", Wanted::Whole),
        ] {
            assert_eq!(wanted(Some(header), 100), expected, "{header}");
        }
        assert_eq!(wanted(None, 100), Wanted::Whole);
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Nothing);
    }

    proptest! {
        #[test]
        fn a_part_lies_in_the_file(header in "bytes=[0-9]{0,22}-[0-9]{0,22}", size: u64) {
            if let Wanted::Part { start, length } = wanted(Some(&header), size) {
                prop_assert!(length > 0 && start.checked_add(length).is_some_and(|end| end <= size));
            }
        }
    }
}
