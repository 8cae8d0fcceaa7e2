//! Text from a sandbox on its way to a terminal: colours and cursor moves pass, everything that could command the terminal does not.
//!
//! A terminal obeys what it is sent: it can be told to answer as if it had been typed, to write the clipboard, to change its title. What a cell
//! prints is written by nobody we know, so only what progress bars and coloured text need is let through.

use vte::{Params, Parser, Perform};

/// Whether colours are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    /// They are.
    Keep,
    /// No escape sequence at all is.
    Drop,
}

/// Lets harmless text through. Remembers sequences that are cut in two.
pub(super) struct Filter {
    parser: Parser,
    passed: Passed,
}

struct Passed {
    colour: Colour,
    text: String,
}

impl Filter {
    /// A filter at the beginning of a text.
    pub(super) fn new(colour: Colour) -> Self {
        let passed = Passed {
            colour,
            text: String::new(),
        };
        Self {
            parser: Parser::new(),
            passed,
        }
    }

    /// What is left of a piece of text.
    pub(super) fn pass(&mut self, text: &str) -> String {
        self.parser.advance(&mut self.passed, text.as_bytes());
        std::mem::take(&mut self.passed.text)
    }
}

impl Perform for Passed {
    fn print(&mut self, c: char) {
        // Marks that turn the direction of writing can make text read as what it is not.
        if !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') && !c.is_control() {
            self.text.push(c);
        }
    }

    fn execute(&mut self, byte: u8) {
        if matches!(byte, b'\n' | b'\r' | b'\t' | 8) {
            self.text.push(char::from(byte));
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        // Colour; cursor up, down, right, left, to the beginning of a line, to a column; erase in display and line.
        let harmless = matches!(action, 'm' | 'A'..='G' | 'J' | 'K');
        if !harmless || ignore || !intermediates.is_empty() || self.colour == Colour::Drop {
            return;
        }
        let params: Vec<_> = params
            .iter()
            .map(|parts| {
                parts
                    .iter()
                    .map(u16::to_string)
                    .collect::<Vec<_>>()
                    .join(":")
            })
            .collect();
        self.text.push_str("\u{1b}[");
        self.text.push_str(&params.join(";"));
        self.text.push(action);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(Filter::new(Colour::Keep).pass(text), expected);
    }

    #[test]
    fn progress_bars_and_colours_pass() {
        for text in [
            "plain ümlaut 中文\ttab\n",
            "\r 50%|█████     |",
            "\u{1b}[31mred\u{1b}[0m",
            "\u{1b}[38;5;208morange\u{1b}[0m",
            "\u{1b}[1A\u{1b}[2K\r",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn commands_to_the_terminal_do_not() {
        check("\u{1b}]0;title\u{7}after", "after");
        check("\u{1b}]52;c;ZXZpbA==\u{1b}\\after", "after");
        check("\u{1b}[6nafter", "after");
        check("\u{1b}[?1049hafter", "after");
        check("\u{1b}[>cafter", "after");
        check("\u{1b}Pq#0\u{1b}\\after", "after");
        // In UTF-8 these introduce nothing, so without them the rest is only text.
        check("\u{9d}0;title\u{9c}after", "0;titleafter");
        check("\u{1b}(0after", "after");
        check("a\u{7}b\u{0}c\u{202e}d", "abcd");
    }

    #[test]
    fn a_sequence_may_be_cut_anywhere() {
        let text = "a\u{1b}[31mb\u{1b}]0;t\u{1b}\\c\u{1b}[0m";
        for cut in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
            let mut filter = Filter::new(Colour::Keep);
            let passed = filter.pass(&text[..cut]) + &filter.pass(&text[cut..]);
            assert_eq!(passed, "a\u{1b}[31mbc\u{1b}[0m", "cut at {cut}");
        }
    }

    #[test]
    fn without_colour_nothing_of_a_sequence_is_left() {
        let mut filter = Filter::new(Colour::Drop);
        assert_eq!(filter.pass("\u{1b}[31mred\u{1b}[0m\u{1b}[Kend"), "redend");
    }

    proptest! {
        #[test]
        fn what_passes_passes_again_unchanged(text in "[\u{1b}\u{9b}\\[\\]0-9;?mKnA\u{7}\\\\a ]*") {
            let once = Filter::new(Colour::Keep).pass(&text);
            prop_assert_eq!(Filter::new(Colour::Keep).pass(&once), once.clone());
            let bell = once.contains('\u{7}');
            prop_assert!(!bell);
        }
    }
}
