//! Tables, colours and bars for a terminal or a pipe.

use std::io::IsTerminal;

/// Whether to write colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    colour: bool,
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
    /// No colours, whatever standard output is.
    #[cfg(test)]
    pub const PLAIN: Style = Style { colour: false };

    /// Colours only where a person sees them: standard output is a terminal and `NO_COLOR` is
    /// unset or empty (<https://no-color.org>).
    pub fn of_stdout() -> Style {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Style {
            colour: !refused && std::io::stdout().is_terminal(),
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

/// Columns padded to their widest cell, two blanks between them, none at the end of a line. An
/// empty cell shows as `-`.
pub fn table(style: Style, head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.max(head[column].chars().count()).max(1)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
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
        let colour = Style { colour: true };
        assert_eq!(colour.paint(Tone::Bad, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(Style::PLAIN.paint(Tone::Bad, "x"), "x");
    }
}
