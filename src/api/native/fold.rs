//! Drops from a text what a later part of it overwrites: a progress bar that draws itself a thousand times becomes one line. Pure.
//!
//! What is left shows the same on a terminal, colours included, and leaves the cursor at the same place, so that whatever is written next
//! comes out right. That is why this is not done by [`super::terminal`], which knows what a screen shows and forgets how to go on from there. Only
//! what is surely covered is dropped: a part between two carriage returns, by one that is at least as wide or erases the line.

use std::borrow::Cow;

/// A part longer than this is left as it is, in bytes.
const LONGEST: usize = 8 * 1024;

/// A part that has taken over more colours than this is left as it is, in bytes.
const MOST_COLOURS: usize = 128;

/// What sets all colours back.
const RESET: &str = "\u{1b}[0m";

/// The text without what it overwrites itself. What came before it must not have [ended within a sequence](ends_within).
pub(crate) fn fold(text: &str) -> Cow<'_, str> {
    if !text.contains('\r') {
        return Cow::Borrowed(text);
    }
    let mut folded = String::new();
    let mut rest = text;
    while let Some(line) = rest.split_inclusive('\n').next() {
        // Where the cursor is before the first line only those know who saw what came before.
        if line.contains('\r') && fold_line(line, rest.len() == text.len(), &mut folded).is_none() {
            // Carriage returns may stand within a sequence from here on, and letters be no letters.
            folded.push_str(rest);
            break;
        }
        if !line.contains('\r') {
            folded.push_str(line);
            if ends_within(line, false) {
                folded.push_str(&rest[line.len()..]);
                break;
            }
        }
        rest = &rest[line.len()..];
    }
    Cow::Owned(folded)
}

/// Whether a text ends within an escape sequence, or may: then what follows must not be folded. `before` says it of what came before the text.
pub(crate) fn ends_within(text: &str, before: bool) -> bool {
    match text.rfind('\u{1b}') {
        None => before,
        Some(last) => matches!(tokens(&text[last..]).next(), Some(Token::Unclear)),
    }
}

/// Folds a line. None, and nothing is written, where there are sequences in it of which the end cannot be told.
fn fold_line(line: &str, begins_anywhere: bool, folded: &mut String) -> Option<()> {
    let (body, end) = match line.strip_suffix('\n') {
        Some(body) => (body, "\n"),
        None => (line, ""),
    };
    let mut kept: Vec<Part<'_>> = Vec::new();
    let mut parts = body.split('\r').enumerate().peekable();
    while let Some((number, text)) = parts.next() {
        let is_last = parts.peek().is_none() && end.is_empty();
        if !is_last && tokens(text).any(|token| matches!(token, Token::Unclear)) {
            return None;
        }
        let mut part = Part::new(text);
        if number == 0 && begins_anywhere {
            part.shape = None;
        }
        while let Some(covered) = kept.pop_if(|below| part.covers(below)) {
            part.inherit(covered);
        }
        kept.push(part);
    }
    for (number, part) in kept.iter().enumerate() {
        if number > 0 {
            folded.push('\r');
        }
        folded.push_str(&part.colours);
        folded.push_str(part.text);
    }
    folded.push_str(end);
    Some(())
}

/// What stands between two carriage returns.
struct Part<'a> {
    /// Colours that were set in parts that it covers, and that still hold.
    colours: String,
    text: &'a str,
    /// None where it does more than to write from left to right: then it neither covers nor is covered.
    shape: Option<Shape>,
}

struct Shape {
    characters: usize,
    /// Whether nothing of the line is left but what it writes itself.
    erases: bool,
}

impl<'a> Part<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            colours: String::new(),
            text,
            shape: Shape::of(text),
        }
    }

    /// Whether nothing can be seen of `below` once this is written over it.
    fn covers(&self, below: &Self) -> bool {
        let (Some(shape), Some(covered)) = (&self.shape, &below.shape) else {
            return false;
        };
        if shape.erases || covered.erases {
            // One that erases has also erased what is below it.
            return shape.erases;
        }
        if shape.characters < covered.characters {
            return false;
        }
        // The same beginning is equally wide, however wide that is.
        let (mut over, mut under) = (characters(self.text), characters(below.text));
        loop {
            match (over.next(), under.next()) {
                (_, None) => return true,
                (a, b) if a == b => {}
                (a, b) => {
                    let least: usize = a.into_iter().chain(over).map(|c| *width(c).start()).sum();
                    let most: usize = b.into_iter().chain(under).map(|c| *width(c).end()).sum();
                    return least >= most;
                }
            }
        }
    }

    /// Takes over what still holds of a part that it covers.
    fn inherit(&mut self, covered: Self) {
        let mut colours = covered.colours;
        for token in tokens(covered.text) {
            match token {
                Token::Colour("\u{1b}[m" | RESET) => RESET.clone_into(&mut colours),
                Token::Colour(colour) if !colours.ends_with(colour) => colours.push_str(colour),
                _ => {}
            }
        }
        if !self.colours.starts_with(RESET) {
            colours.push_str(&self.colours);
            self.colours = colours;
        }
        if self.colours.len() > MOST_COLOURS {
            self.shape = None;
        }
    }
}

impl Shape {
    fn of(text: &str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let mut shape = Self {
            characters: 0,
            erases: false,
        };
        for token in tokens(text) {
            match token {
                Token::Character(_) => shape.characters += 1,
                Token::Colour(_) => {}
                Token::EraseLine => shape.erases = true,
                Token::Other | Token::Unclear => return None,
            }
        }
        Some(shape)
    }
}

/// What a terminal does with a piece of text.
enum Token<'a> {
    /// It shows it.
    Character(char),
    /// It changes the colour.
    Colour(&'a str),
    /// It erases the line, or the rest of it.
    EraseLine,
    /// It does something else.
    Other,
    /// It waits for the rest of a sequence, or may: the rest of the text.
    Unclear,
}

fn tokens(mut text: &str) -> impl Iterator<Item = Token<'_>> {
    std::iter::from_fn(move || {
        let first = text.chars().next()?;
        let (token, length) = match first {
            '\u{1b}' => sequence(text),
            first if first.is_control() => (Token::Other, first.len_utf8()),
            first => (Token::Character(first), first.len_utf8()),
        };
        text = &text[length..];
        Some(token)
    })
}

/// The escape sequence that a text begins with, and its length.
fn sequence(text: &str) -> (Token<'_>, usize) {
    let bytes = text.as_bytes();
    let unclear = (Token::Unclear, text.len());
    let run = |from: usize, set: std::ops::RangeInclusive<u8>| {
        let rest = bytes.get(from..).unwrap_or_default();
        from + rest.iter().take_while(|byte| set.contains(byte)).count()
    };
    let end = match bytes.get(1) {
        Some(b'[') => {
            let parameters = run(2, 0x30..=0x3f);
            let end = run(parameters, 0x20..=0x2f);
            match bytes.get(end) {
                Some(b'm') if end == parameters => {
                    return (Token::Colour(&text[..=end]), end + 1);
                }
                Some(b'K') if matches!(&text[2..end], "" | "0" | "2") => {
                    return (Token::EraseLine, end + 1);
                }
                Some(0x40..=0x7e) => end,
                _ => return unclear,
            }
        }
        Some(b']') => match text[2..].find(|c: char| c.is_control()) {
            Some(end) if bytes[2 + end] == 0x07 => 2 + end,
            _ => return unclear,
        },
        Some(b'P' | b'X' | b'^' | b'_') => return unclear,
        _ => {
            let end = run(1, 0x20..=0x2f);
            match bytes.get(end) {
                Some(0x30..=0x7e) => end,
                _ => return unclear,
            }
        }
    };
    (Token::Other, end + 1)
}

fn characters(text: &str) -> impl Iterator<Item = char> {
    tokens(text).filter_map(|token| match token {
        Token::Character(character) => Some(character),
        _ => None,
    })
}

/// How many columns a character takes, at least and at most: fonts, terminals and tables of Unicode differ on all that is not here.
fn width(character: char) -> std::ops::RangeInclusive<usize> {
    match character {
        ' '..='~'
        | '\u{a1}'..='\u{ac}'
        | '\u{ae}'..='\u{2ff}'
        | '\u{370}'..='\u{482}'
        | '\u{48a}'..='\u{52f}'
        | '\u{2010}'..='\u{2027}'
        | '\u{2030}'..='\u{205e}'
        | '\u{2070}'..='\u{20cf}'
        | '\u{2100}'..='\u{22ff}'
        | '\u{2500}'..='\u{25fc}'
        | '\u{2800}'..='\u{28ff}' => 1..=1,
        _ => 0..=2,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::terminal::plain;
    use super::*;

    #[test]
    fn a_progress_bar_is_one_line() {
        let mut text = "start\n".to_owned();
        for n in 0..=1000 {
            text.push_str(&format!("\r{n:4}%|{}|", "█".repeat(n / 100)));
        }
        assert_eq!(fold(&text), "start\n1000%|██████████|");
    }

    #[test]
    fn only_what_is_surely_covered_is_dropped() {
        for (written, left) in [
            ("abc\rxyz", "abc\rxyz"),
            ("\nabc\rxyz", "\nxyz"),
            ("\nabcdef\rxy\r12", "\nabcdef\r12"),
            ("\nabcdef\rxy\r12345678", "\n12345678"),
            ("\n50%\r60%\r\n", "\n60%\r\n"),
            ("\na\r\nb\r\n", "\na\r\nb\r\n"),
            ("\nlong text\r\u{1b}[Kx", "\n\u{1b}[Kx"),
            ("\nlong text\rx\u{1b}[K", "\nx\u{1b}[K"),
            (
                "\u{1b}[2K\r10%\u{1b}[2K\r20%\u{1b}[2K\r30%",
                "\u{1b}[2K\r20%\u{1b}[2K\r30%",
            ),
            ("\nabc\r\u{1b}[Axyz", "\nabc\r\u{1b}[Axyz"),
            ("\nabc\rx\u{8}yz", "\nabc\rx\u{8}yz"),
            ("\nabc\rxyz\u{1b}[3", "\nabc\rxyz\u{1b}[3"),
            // A wide character may take two columns, and a combining one none.
            ("\n日本\rab", "\n日本\rab"),
            ("\n日本 1\r日本 2", "\n日本 2"),
            ("\nabc\rab\u{301}", "\nabc\rab\u{301}"),
            // A title is set, and a sequence is not at its end.
            (
                "\nabc\r\u{1b}]0;title\u{7}xyz\ruvw",
                "\nabc\r\u{1b}]0;title\u{7}xyz\ruvw",
            ),
            ("\n\u{1b}\rabc\rabc", "\n\u{1b}\rabc\rabc"),
        ] {
            assert_eq!(fold(written), left, "{written:?}");
        }
    }

    #[test]
    fn colours_outlive_the_text_that_they_came_with() {
        assert_eq!(fold("\n\u{1b}[31mabc\rxyz"), "\n\u{1b}[31mxyz");
        assert_eq!(
            fold("\n\u{1b}[31mabc\u{1b}[0m\r\u{1b}[32mdef\u{1b}[0m\r\u{1b}[33mghi"),
            "\n\u{1b}[0m\u{1b}[33mghi"
        );
    }

    fn writings() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => "[a-c]{0,6}",
            4 => Just("\r".to_owned()),
            1 => Just("\n".to_owned()),
            1 => "[é日\u{301}█]{0,3}",
            1 => "\u{1b}\\[[0-2]?[ABCDGKJ]",
            1 => "\u{1b}\\[[0-9;]{0,3}m",
            1 => "[\u{8}\t\u{1b}\\[\\]]",
        ];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn what_is_folded_shows_the_same_whatever_comes_before_and_after(
            before in writings(), text in writings(), after in writings()
        ) {
            let before = if ends_within(&before, false) { String::new() } else { before };
            let folded = fold(&text);
            prop_assert!(folded.len() <= text.len() + RESET.len());
            let whole = plain(&format!("{before}{text}{after}"), 4096);
            let shown = plain(&format!("{before}{folded}{after}"), 4096);
            prop_assert_eq!(whole.preview, shown.preview);
        }

        #[test]
        fn folding_bit_by_bit_shows_the_same(one in writings(), two in writings()) {
            let folded = fold(&format!("{}{two}", fold(&one))).into_owned();
            prop_assert_eq!(ends_within(&folded, false), ends_within(&format!("{one}{two}"), false));
            prop_assert_eq!(plain(&folded, 4096).preview, plain(&format!("{one}{two}"), 4096).preview);
        }
    }
}
