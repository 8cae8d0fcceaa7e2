//! Text as a terminal would show it: a progress bar that draws itself a thousand times is one line.
//!
//! Pure, and bounded whatever comes in: a window of lines that a cursor can still reach, and of everything above it a head and a tail.

use std::collections::VecDeque;
use std::fmt::Write as _;

use vte::{Params, Parser, Perform};

/// How many lines up a cursor can move.
const WINDOW: usize = 50;

/// The longest line that can still be changed, in characters; the beginning of a longer one is settled.
const LINE: usize = 16 * 1024;

/// A text that is being written, of which a beginning and an end are kept.
pub(crate) struct Terminal {
    parser: Parser,
    screen: Screen,
    bytes: u64,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// What a terminal shows at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The text; when long its beginning and its end, with a line between them that says how much is left out.
    pub(crate) preview: String,
    /// How many lines there are, left out ones included.
    pub(crate) lines: u64,
    /// How many bytes were written, before anything was overwritten.
    pub(crate) bytes: u64,
    /// Whether something was left out.
    pub(crate) truncated: bool,
}

impl Terminal {
    /// An empty one, of which at most about `keep` bytes will be shown.
    pub(crate) fn new(keep: usize) -> Self {
        Self {
            parser: Parser::new(),
            screen: Screen::new(keep),
            bytes: 0,
        }
    }

    /// Writes to it.
    pub(crate) fn write(&mut self, text: &str) {
        self.bytes += text.len() as u64;
        self.parser.advance(&mut self.screen, text.as_bytes());
    }

    /// What it shows.
    pub(crate) fn show(mut self) -> Shown {
        let lines = std::mem::take(&mut self.screen.lines);
        let last = lines.len().saturating_sub(1);
        for (row, line) in lines.iter().enumerate() {
            self.screen.kept.push(line, row != last);
        }
        let mut shown = self.screen.kept.show();
        shown.bytes = self.bytes;
        shown
    }
}

/// A text without its escape sequences, shortened to about `keep` bytes.
pub(crate) fn plain(text: &str, keep: usize) -> Shown {
    let mut terminal = Terminal::new(keep);
    terminal.write(text);
    terminal.show()
}

/// The lines that can still be changed, and where the cursor is.
struct Screen {
    /// Never empty while text is written.
    lines: VecDeque<Vec<char>>,
    row: usize,
    column: usize,
    kept: Kept,
}

impl Screen {
    fn new(keep: usize) -> Self {
        Self {
            lines: VecDeque::from([Vec::new()]),
            row: 0,
            column: 0,
            kept: Kept::new(keep),
        }
    }

    fn line(&mut self) -> &mut Vec<char> {
        &mut self.lines[self.row]
    }

    fn new_line(&mut self) {
        self.column = 0;
        self.row += 1;
        if self.row < self.lines.len() {
            return;
        }
        self.lines.push_back(Vec::new());
        if self.lines.len() > WINDOW {
            let settled = self.lines.pop_front().expect("there are more than a few");
            self.kept.push(&settled, true);
            self.row -= 1;
        }
    }

    fn put(&mut self, c: char) {
        if self.column >= LINE {
            // What lies above it has to be settled first, to keep the order.
            for line in self.lines.drain(..self.row) {
                self.kept.push(&line, true);
            }
            self.row = 0;
            let long = std::mem::take(&mut self.lines[0]);
            self.kept.push(&long, false);
            self.column = 0;
        }
        let column = self.column;
        let line = self.line();
        if column < line.len() {
            line[column] = c;
        } else {
            line.resize(column, ' ');
            line.push(c);
        }
        self.column += 1;
    }

    fn erase_line(&mut self, how: usize) {
        let column = self.column;
        let line = self.line();
        match how {
            0 => line.truncate(column),
            1 => line.iter_mut().take(column + 1).for_each(|c| *c = ' '),
            2 => line.clear(),
            _ => {}
        }
    }

    fn erase_screen(&mut self, how: usize) {
        match how {
            0 => {
                self.erase_line(0);
                self.lines.truncate(self.row + 1);
            }
            1 => {
                self.lines.iter_mut().take(self.row).for_each(Vec::clear);
                self.erase_line(1);
            }
            2 | 3 => {
                self.lines = VecDeque::from([Vec::new()]);
                (self.row, self.column) = (0, 0);
            }
            _ => {}
        }
    }
}

impl Perform for Screen {
    fn print(&mut self, c: char) {
        self.put(c);
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\n' | 0x0b | 0x0c => self.new_line(),
            b'\r' => self.column = 0,
            0x08 => self.column = self.column.saturating_sub(1),
            b'\t' => self.put('\t'),
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        if ignore || !intermediates.is_empty() {
            return;
        }
        let first = params
            .iter()
            .next()
            .and_then(|param| param.first().copied())
            .map_or(0, usize::from);
        let count = first.max(1);
        let last = self.lines.len() - 1;
        match action {
            'A' => self.row = self.row.saturating_sub(count),
            'B' => self.row = (self.row + count).min(last),
            'C' => self.column = (self.column + count).min(LINE - 1),
            'D' => self.column = self.column.saturating_sub(count),
            'E' => (self.row, self.column) = ((self.row + count).min(last), 0),
            'F' => (self.row, self.column) = (self.row.saturating_sub(count), 0),
            'G' => self.column = (count - 1).min(LINE - 1),
            'J' => self.erase_screen(first),
            'K' => self.erase_line(first),
            _ => {}
        }
    }
}

/// The beginning and the end of a text that comes line by line.
struct Kept {
    keep: usize,
    head: String,
    /// Whether the head is complete: something came that did not fit.
    closed: bool,
    tail: VecDeque<String>,
    tail_bytes: usize,
    /// Line ends so far.
    lines: u64,
    /// Whether the text ends within a line.
    open_line: bool,
    dropped_bytes: u64,
    dropped_lines: u64,
}

impl Kept {
    fn new(keep: usize) -> Self {
        Self {
            keep,
            head: String::new(),
            closed: false,
            tail: VecDeque::new(),
            tail_bytes: 0,
            lines: 0,
            open_line: false,
            dropped_bytes: 0,
            dropped_lines: 0,
        }
    }

    fn push(&mut self, line: &[char], ends: bool) {
        let mut text: String = line.iter().collect();
        if ends {
            text.push('\n');
            self.lines += 1;
        }
        if text.is_empty() {
            return;
        }
        self.open_line = !ends;
        let room = (self.keep / 2).saturating_sub(self.head.len());
        if !self.closed && text.len() <= room {
            self.head.push_str(&text);
            return;
        }
        if !self.closed && self.head.is_empty() {
            let rest = text.split_off(text.floor_char_boundary(room));
            self.head = std::mem::replace(&mut text, rest);
        }
        self.closed = true;
        self.tail_bytes += text.len();
        self.tail.push_back(text);
        while let Some(first) = self.tail.front()
            && self.tail_bytes - first.len() >= self.keep / 2
        {
            let first = self.tail.pop_front().expect("there is a first");
            self.drop_text(&first);
        }
    }

    fn drop_text(&mut self, text: &str) {
        self.tail_bytes -= text.len();
        self.dropped_bytes += text.len() as u64;
        self.dropped_lines += text.bytes().filter(|byte| *byte == b'\n').count() as u64;
    }

    fn show(mut self) -> Shown {
        while self.tail.len() > 1 && self.tail_bytes > self.keep / 2 {
            let first = self.tail.pop_front().expect("there is more than one");
            self.drop_text(&first);
        }
        let excess = self.tail_bytes.saturating_sub(self.keep / 2);
        if excess > 0
            && let Some(mut only) = self.tail.pop_front()
        {
            let rest = only.split_off(only.ceil_char_boundary(excess));
            self.drop_text(&only);
            self.tail.push_front(rest);
        }
        let truncated = self.dropped_bytes > 0;
        let mut preview = self.head;
        if truncated {
            if !preview.is_empty() && !preview.ends_with('\n') {
                preview.push('\n');
            }
            let (bytes, lines) = (self.dropped_bytes, self.dropped_lines);
            writeln!(preview, "[… {bytes} bytes, {lines} lines left out …]")
                .expect("a string takes all");
        }
        preview.extend(self.tail);
        Shown {
            preview,
            lines: self.lines + u64::from(self.open_line),
            bytes: 0,
            truncated,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        plain(text, 16 * 1024).preview
    }

    #[test]
    fn a_progress_bar_is_one_line() {
        let mut text = String::new();
        for n in 0..=100 {
            write!(text, "\r{n:3}%|{}|", "#".repeat(n / 10)).unwrap();
        }
        text.push('\n');
        assert_eq!(shown(&text), "100%|##########|\n");
    }

    #[test]
    fn nested_progress_bars_are_two_lines() {
        let text = "outer 0\n\rinner 0\r\u{1b}[A\router 1\n\rinner 1\u{1b}[A\r\u{1b}[Kouter 2\n\rinner 2\n";
        assert_eq!(shown(text), "outer 2\ninner 2\n");
    }

    #[test]
    fn what_moves_and_erases_is_obeyed() {
        for (written, shows) in [
            ("abc\u{8}\u{8}X", "aXc"),
            ("abc\r\u{1b}[Kx", "x"),
            ("abc\u{1b}[2Kx", "   x"),
            ("abc\u{1b}[3Dx", "xbc"),
            ("one\ntwo\n\u{1b}[2Jthree", "three"),
            ("a\r\nb\r\n", "a\nb\n"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}text", "text"),
            ("bell\u{7}", "bell"),
            ("a\tb", "a\tb"),
            ("\u{1b}[5Cx", "     x"),
            ("日本\u{8}語", "日語"),
            ("cut \u{1b}[", "cut "),
        ] {
            assert_eq!(shown(written), shows, "{written:?}");
        }
    }

    #[test]
    fn a_long_text_shows_its_head_and_tail_and_how_much_lies_between() {
        let text: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        let shown = plain(&text, 60);
        assert_eq!(
            shown.preview,
            "line 0\nline 1\nline 2\nline 3\n[… 8835 bytes, 993 lines left out …]\nline 997\nline 998\nline 999\n"
        );
        assert_eq!(
            (shown.lines, shown.bytes, shown.truncated),
            (1000, 8890, true)
        );
    }

    #[test]
    fn one_endless_line_is_bounded_too() {
        let shown = plain(&"x".repeat(1_000_000), 100);
        assert_eq!(shown.preview.matches('x').count(), 100);
        assert!(shown.truncated);
        assert_eq!(shown.lines, 1);
    }

    #[test]
    fn nothing_is_left_out_of_a_short_text() {
        assert_eq!(plain("", 100), Shown::default());
        let shown = plain("a\nb", 100);
        assert_eq!(
            (shown.preview.as_str(), shown.lines, shown.truncated),
            ("a\nb", 2, false)
        );
    }

    proptest! {
        #[test]
        fn any_text_is_shown_within_bounds(text in "(\\PC|\n|\r|\u{8}|\u{1b}\\[[0-9]{0,9}[A-K]){0,200}", keep in 0_usize..200) {
            let shown = plain(&text, keep);
            prop_assert!(shown.preview.len() <= keep + 60);
        }

        #[test]
        fn how_a_text_is_cut_into_writes_does_not_matter(text in "([a-c]|\n|\r|\u{1b}\\[[0-3]?[AK]){0,60}", at in 0_usize..60) {
            let at = text.floor_char_boundary(at);
            let mut terminal = Terminal::new(100);
            terminal.write(&text[..at]);
            terminal.write(&text[at..]);
            prop_assert_eq!(terminal.show(), plain(&text, 100));
        }
    }
}
