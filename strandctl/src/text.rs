//! Tables, colours and bars for a terminal or a pipe.

use rustix::termios::tcgetwinsize;
use std::io::{IsTerminal, stdout};

/// Whether to write colours, and how wide lines may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    colour: bool,
    /// Characters of a line of the terminal; none where nothing is to be cut.
    width: Option<usize>,
}

/// What a piece of text is meant to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Wants attention.
    Bad,
    /// On its way, or to be noted.
    Note,
    /// Less important than the rest.
    Faint,
    /// A heading.
    Strong,
}

impl Style {
    /// No colours and no end of a line, whatever standard output is.
    #[cfg(test)]
    pub const PLAIN: Style = Style {
        colour: false,
        width: None,
    };

    /// No colours, on a terminal of that width.
    #[cfg(test)]
    pub const fn of_width(width: usize) -> Style {
        Style {
            colour: false,
            width: Some(width),
        }
    }

    /// Colours only where a person sees them: standard output is a terminal and `NO_COLOR` is
    /// unset or empty (<https://no-color.org>). A program that reads a pipe gets whole lines.
    pub fn of_stdout() -> Style {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let terminal = stdout().is_terminal();
        let seen = || tcgetwinsize(stdout()).map_or(0, |size| size.ws_col);
        let told = std::env::var("COLUMNS").ok();
        Style {
            colour: !refused && terminal,
            width: terminal.then(|| width(seen(), told)).flatten(),
        }
    }

    /// The same with lines as long as they are: what `-o wide` asks for.
    pub fn uncut(self) -> Style {
        Style {
            width: None,
            ..self
        }
    }

    /// `text` in the colour of `tone`.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.into();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Note => "33",
            Tone::Faint => "2",
            Tone::Strong => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// The terminal's width, or where it knows none (a serial line), what `COLUMNS` says.
fn width(seen: u16, told: Option<String>) -> Option<usize> {
    match seen {
        0 => told?.parse().ok().filter(|width| *width > 0),
        seen => Some(seen.into()),
    }
}

/// Characters of the last column below which it is not cut: what is left of it would say nothing.
const LEAST: usize = 20;

/// A table whose last column is words: they are cut where the terminal ends, if that leaves enough of
/// them to be of use, and a line says how to see them all.
pub fn fitted(style: Style, head: &[&str], rows: &[Vec<String>]) -> String {
    let (Some(width), Some(last)) = (style.width, head.len().checked_sub(1)) else {
        return table(style, head, rows);
    };
    let before: usize = (0..last).map(|column| widest(head, rows, column) + 2).sum();
    let room = width.saturating_sub(before);
    if room < LEAST {
        return table(style, head, rows);
    }
    let mut rows = rows.to_vec();
    let mut cut = false;
    for cell in rows.iter_mut().filter_map(|row| row.get_mut(last)) {
        if cell.chars().count() > room {
            *cell = cell.chars().take(room - 1).chain(['…']).collect();
            cut = true;
        }
    }
    let mut text = table(style, head, &rows);
    if cut {
        text.push_str(&style.paint(Tone::Faint, "…  `-o wide` shows all"));
        text.push('\n');
    }
    text
}

fn widest(head: &[&str], rows: &[Vec<String>], column: usize) -> usize {
    let cells = rows.iter().filter_map(|row| row.get(column));
    let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
    widest.max(head[column].chars().count()).max(1)
}

/// Columns padded to their widest cell, two blanks between them, none at the end of a line. An
/// empty cell shows as `-`.
pub fn table(style: Style, head: &[&str], rows: &[Vec<String>]) -> String {
    let columns = 0..head.len();
    let widths: Vec<usize> = columns.map(|column| widest(head, rows, column)).collect();
    let line = |cells: &[&str]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            let cell = if cell.is_empty() { "-" } else { cell };
            line.push_str(&format!("{cell:<width$}  "));
        }
        line.trim_end().to_owned()
    };
    let mut text = style.paint(Tone::Strong, &line(head));
    text.push('\n');
    for row in rows {
        let cells: Vec<&str> = row.iter().map(String::as_str).collect();
        text.push_str(&line(&cells));
        text.push('\n');
    }
    text
}

/// A bar of `width` characters of which `part` of `whole` is dark; anything above nothing shows,
/// and anything short of everything does too.
pub fn bar(part: u64, whole: u64, width: usize) -> String {
    if whole == 0 {
        return "░".repeat(width);
    }
    let exact = u128::from(part.min(whole)) * width as u128;
    let mut dark = ((exact * 2 + u128::from(whole)) / (u128::from(whole) * 2)) as usize;
    if part > 0 {
        dark = dark.max(1);
    }
    if part < whole {
        dark = dark.min(width - 1);
    }
    format!("{}{}", "█".repeat(dark), "░".repeat(width - dark))
}

/// `1 drive`, `2 drives`.
pub fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_shows_empty_cells() {
        let rows = vec![
            vec!["node-1".into(), "█░".into(), String::new()],
            vec!["n".into(), String::new(), "x".into()],
        ];
        assert_eq!(
            table(Style::PLAIN, &["NODE", "CARVE", "WHY"], &rows),
            "NODE    CARVE  WHY\nnode-1  █░     -\nn       -      x\n"
        );
    }

    #[test]
    fn the_last_column_ends_where_the_terminal_does() {
        let rows = vec![
            vec!["node-1".into(), "░ läuft noch, seit gestern Abend".into()],
            vec!["n".into(), String::new()],
        ];
        let head = ["NODE", "WHY"];
        let drawn = |width| fitted(Style::of_width(width), &head, &rows);
        let whole = table(Style::PLAIN, &head, &rows);
        assert_eq!(fitted(Style::PLAIN, &head, &rows), whole);
        assert_eq!(drawn(40), whole);
        assert_eq!(
            drawn(39),
            "NODE    WHY\nnode-1  ░ läuft noch, seit gestern Abe…\nn       -\n…  `-o wide` shows all\n"
        );
        assert!(drawn(28).contains("\nnode-1  ░ läuft noch, seit …\n"));
        assert_eq!(drawn(27), whole, "too little would be left");
        let narrow = Style::of_width(28);
        assert_eq!(fitted(narrow.uncut(), &head, &rows), whole);
        assert_eq!(table(narrow, &head, &rows), whole);
    }

    #[test]
    fn a_terminal_that_knows_no_width_is_as_wide_as_columns_says() {
        let says = |told: &str| width(0, Some(told.into()));
        assert_eq!(width(120, Some("80".into())), Some(120));
        assert_eq!(says("80"), Some(80));
        assert_eq!(
            (says("0"), says("wide"), width(0, None)),
            (None, None, None)
        );
    }

    #[test]
    fn a_bar_never_hides_a_side() {
        assert_eq!(bar(60, 100, 10), "██████░░░░");
        assert_eq!(bar(1, 1 << 40, 10), "█░░░░░░░░░");
        assert_eq!(bar((1 << 40) - 1, 1 << 40, 10), "█████████░");
        assert_eq!(bar(0, 5, 4), "░░░░");
        assert_eq!(bar(5, 5, 4), "████");
        assert_eq!(bar(u64::MAX, u64::MAX, 4), "████");
        assert_eq!(bar(0, 0, 3), "░░░");
    }

    #[test]
    fn colours_are_written_only_where_asked_for() {
        let colour = Style {
            colour: true,
            ..Style::PLAIN
        };
        assert_eq!(colour.paint(Tone::Bad, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(Style::PLAIN.paint(Tone::Bad, "x"), "x");
    }
}
