//! Finds a text in one that comes bit by bit. Pure, and bounded: it holds what a match and its surroundings may lie in.

use super::OutputMatch;
use super::scan::{Place, TakesText, lines};

/// How much of its line is shown before and after a match, in bytes.
const CONTEXT: usize = 200;

/// A search under way.
#[derive(Debug)]
pub(super) struct Search {
    from: u64,
    find: String,
    limit: usize,
    /// What may still be needed.
    held: String,
    /// Where in the whole text that begins; none before any has come.
    begins: Option<u64>,
    /// Up to where in it was searched.
    searched: usize,
    /// Up to where in it lines were counted.
    counted: usize,
    /// How many line ends there are up to there.
    lines: u64,
    matches: Vec<OutputMatch>,
    total: u64,
    /// Where the last match ends that is shown.
    shown_up_to: u64,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    /// The first matches.
    pub(super) matches: Vec<OutputMatch>,
    /// How many there are.
    pub(super) total: u64,
    /// Where to search on: no match lies between the last one that is shown and there, nor begins before it.
    pub(super) next: u64,
}

impl Search {
    /// For a text, from a byte on; `limit` matches are shown, all are counted.
    pub(super) fn new(from: u64, find: String, limit: usize) -> Self {
        Self {
            from,
            find,
            limit,
            held: String::new(),
            begins: None,
            searched: 0,
            counted: 0,
            lines: 0,
            matches: Vec::new(),
            total: 0,
            shown_up_to: 0,
        }
    }

    /// From where on it has to be given text, so that it can show what is around the first match.
    pub(super) fn begin(&self) -> u64 {
        self.from.saturating_sub(CONTEXT as u64 + 4)
    }

    /// What was found.
    pub(super) fn finish(mut self) -> Found {
        self.search(true);
        let all_shown = self.total == self.matches.len() as u64;
        let next = if all_shown {
            self.begins.unwrap_or(0) + self.searched as u64
        } else {
            self.shown_up_to
        };
        Found {
            matches: self.matches,
            total: self.total,
            next,
        }
    }

    /// Searches what has come. `last` says that nothing follows: until then a match near the end waits for the rest of its line.
    fn search(&mut self, last: bool) {
        let begins = self.begins.unwrap_or(0);
        let first = usize::try_from(self.from.saturating_sub(begins)).unwrap_or(usize::MAX);
        let first = self.held.ceil_char_boundary(first);
        self.searched = self.searched.max(first);
        while let Some(found) = self.held[self.searched..].find(&self.find) {
            let at = self.searched + found;
            if !last && at + self.find.len() + CONTEXT > self.held.len() {
                self.searched = at;
                return;
            }
            self.searched = at + self.find.len();
            self.note(at, begins);
        }
        // The beginning of a match may be there already.
        let rest = self.held.len().saturating_sub(self.find.len() - 1);
        self.searched = self.searched.max(self.held.floor_char_boundary(rest));
    }

    fn note(&mut self, at: usize, begins: u64) {
        self.total += 1;
        if self.matches.len() == self.limit {
            return;
        }
        self.count_lines(at);
        let end = at + self.find.len();
        let earliest = self.held.ceil_char_boundary(at.saturating_sub(CONTEXT));
        let latest = self
            .held
            .floor_char_boundary((end + CONTEXT).min(self.held.len()));
        let start = self.held[earliest..at]
            .rfind('\n')
            .map_or(earliest, |line_end| earliest + line_end + 1);
        let stop = self.held[end..latest]
            .find('\n')
            .map_or(latest, |line_end| end + line_end);
        self.matches.push(OutputMatch {
            byte: begins + at as u64,
            line: self.lines + 1,
            text: self.held[start..stop].to_owned(),
        });
        self.shown_up_to = begins + end as u64;
    }

    fn count_lines(&mut self, up_to: usize) {
        self.lines += lines(&self.held[self.counted..up_to]);
        self.counted = up_to;
    }

    /// Lets go of what no match can need any more.
    fn let_go(&mut self) {
        let unneeded = self.searched.saturating_sub(CONTEXT);
        let unneeded = self.held.floor_char_boundary(unneeded);
        if unneeded > self.counted {
            self.count_lines(unneeded);
        }
        self.held.drain(..unneeded);
        self.begins = self.begins.map(|begins| begins + unneeded as u64);
        self.searched -= unneeded;
        self.counted -= unneeded;
    }
}

impl TakesText for Search {
    fn take(&mut self, at: Place, text: &str) {
        if self.begins.is_none() {
            (self.begins, self.lines) = (Some(at.bytes), at.lines);
        }
        self.held.push_str(text);
        self.search(false);
        self.let_go();
    }

    fn has_enough(&self) -> bool {
        // All matches are counted.
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn search(texts: &[String], from: u64, find: &str, limit: usize) -> Found {
        let mut search = Search::new(from, find.to_owned(), limit);
        let mut at = Place::default();
        for text in texts {
            // As a mark would have it: what is surely not needed is not given.
            if at.bytes + text.len() as u64 > search.begin() {
                search.take(at, text);
            }
            at.advance(text);
        }
        search.finish()
    }

    #[test]
    fn a_match_is_shown_in_its_line() {
        let text = "first\nsecond error: disk\nthird\nanother error".to_owned();
        let found = search(&[text], 0, "error", 10);
        let shown: Vec<_> = found
            .matches
            .iter()
            .map(|found| (found.byte, found.line, found.text.as_str()))
            .collect();
        assert_eq!(
            shown,
            [(13, 2, "second error: disk"), (39, 4, "another error")]
        );
        assert_eq!((found.total, found.next), (2, 44));
    }

    #[test]
    fn of_a_long_line_the_surroundings_are_shown() {
        let text = format!("{}x{}", "a".repeat(5000), "b".repeat(5000));
        let found = search(&[text], 0, "x", 10);
        assert_eq!(
            found.matches[0].text,
            format!("{}x{}", "a".repeat(200), "b".repeat(200))
        );
    }

    #[test]
    fn the_search_goes_on_where_it_was_left() {
        let texts = vec!["a match\n".to_owned(); 25];
        let (mut from, mut lines) = (0, Vec::new());
        loop {
            let found = search(&texts, from, "match", 10);
            lines.extend(found.matches.iter().map(|found| found.line));
            from = found.next;
            if found.total == found.matches.len() as u64 {
                break;
            }
        }
        assert_eq!(lines, (1..=25).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn every_match_is_found_however_the_text_is_cut(
            texts in proptest::collection::vec("[ab\nü]{0,200}", 0..8), find in "[ab\nü]{1,3}", from in 0_u64..600, limit in 1_usize..4
        ) {
            let whole = texts.concat();
            let start = whole.ceil_char_boundary(usize::try_from(from).unwrap());
            let expected: Vec<usize> = whole[start..].match_indices(&find).map(|(at, _)| start + at).collect();
            let found = search(&texts, from, &find, limit);
            prop_assert_eq!(found.total, expected.len() as u64);
            prop_assert_eq!(found.matches.len(), expected.len().min(limit));
            for (found, at) in found.matches.iter().zip(expected) {
                prop_assert_eq!(found.byte, at as u64);
                prop_assert_eq!(found.line, 1 + lines(&whole[..at]));
                prop_assert!(found.text.contains(&find) || find.contains('\n'));
                prop_assert!(found.text.len() <= 2 * CONTEXT + find.len());
            }
        }

        #[test]
        fn what_comes_later_is_found_from_next_on(one in "[ab]{0,9}", two in "[ab]{0,9}", find in "[ab]{1,3}") {
            let early = search(std::slice::from_ref(&one), 0, &find, 100);
            let late = search(&[one.clone(), two.clone()], early.next, &find, 100);
            let whole = format!("{one}{two}");
            prop_assert_eq!(early.total + late.total, whole.matches(&find).count() as u64);
        }
    }
}
