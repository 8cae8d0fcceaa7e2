//! A part of a text that comes bit by bit. Pure.

use super::scan::{Place, TakesText};

/// A part of a text: whole characters, at least one if there is one, else at most so many bytes.
#[derive(Debug)]
pub(super) struct Slice {
    from: u64,
    most: usize,
    /// Where it really begins.
    begins: Option<u64>,
    text: String,
    is_full: bool,
}

impl Slice {
    /// So much from there on. Where that is within a character, the character is in it.
    pub(super) fn new(from: u64, most: usize) -> Self {
        Self {
            from,
            most,
            begins: None,
            text: String::new(),
            is_full: false,
        }
    }

    /// Where it begins, and what it is.
    pub(super) fn finish(self) -> (u64, String) {
        (self.begins.unwrap_or(self.from), self.text)
    }
}

impl TakesText for Slice {
    fn take(&mut self, at: Place, text: &str) {
        if self.is_full || at.bytes + text.len() as u64 <= self.from {
            return;
        }
        let skipped = usize::try_from(self.from.saturating_sub(at.bytes)).unwrap_or(usize::MAX);
        let skipped = text.floor_char_boundary(skipped);
        self.begins.get_or_insert(at.bytes + skipped as u64);
        let rest = &text[skipped..];
        let mut end = rest.floor_char_boundary(self.most - self.text.len());
        if self.text.is_empty() {
            end = end.max(rest.ceil_char_boundary(1));
        }
        self.text.push_str(&rest[..end]);
        self.is_full = end < rest.len() || self.text.len() >= self.most;
    }

    fn has_enough(&self) -> bool {
        self.is_full
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slice(texts: &[String], from: u64, most: usize) -> (u64, String) {
        let mut slice = Slice::new(from, most);
        let mut at = Place::default();
        for text in texts {
            slice.take(at, text);
            at.advance(text);
        }
        slice.finish()
    }

    #[test]
    fn a_part_has_whole_characters() {
        let texts = ["aü".to_owned(), "日b".to_owned()];
        for (from, most, expected) in [
            (0, 100, (0, "aü日b")),
            (0, 2, (0, "a")),
            (2, 2, (1, "ü")),
            (1, 1, (1, "ü")),
            (4, 3, (3, "日")),
            (6, 3, (6, "b")),
            (7, 3, (7, "")),
        ] {
            let (begins, text) = slice(&texts, from, most);
            assert_eq!((begins, text.as_str()), expected, "{from} {most}");
        }
    }

    proptest! {
        #[test]
        fn the_parts_make_the_whole(texts in proptest::collection::vec("[aü日]{0,5}", 0..8), most in 1_usize..9) {
            let (mut whole, mut from) = (String::new(), 0);
            loop {
                let (begins, text) = slice(&texts, from, most);
                prop_assert_eq!(begins, from);
                prop_assert!(text.len() <= most.max(3));
                if text.is_empty() {
                    break;
                }
                from += text.len() as u64;
                whole.push_str(&text);
            }
            prop_assert_eq!(whole, texts.concat());
        }
    }
}
