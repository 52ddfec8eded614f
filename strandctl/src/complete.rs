//! What kubectl asks of a plugin whose words a shell completes: it runs `kubectl_complete-strand` with them, and reads a candidate a line,
//! then a number that says how to go on (`kubectl plugin --help`; the numbers are those of cobra's `ShellCompDirective`).

use clap::{Arg, Command};

/// The name by which kubectl finds this program for that.
pub const NAME: &str = "kubectl_complete-strand";
/// The candidates are all there is.
const NO_FILES: u8 = 4;
/// Names of files will do.
const FILES: u8 = 0;

/// The answer for these words, of which the last is being typed. `command` has been built.
pub fn answer(command: &Command, words: &[String]) -> String {
    let (typed, before) = words
        .split_last()
        .map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let at = before
        .iter()
        .fold(command, |at, word| at.find_subcommand(word).unwrap_or(at));
    let awaited = before.last().and_then(|flag| awaits(at, flag));
    let candidates = match awaited {
        Some(flag) => values(flag),
        None if typed.starts_with('-') => flags(at),
        None => {
            let words = at.get_subcommands().filter(|sub| !sub.is_hide_set());
            let words = words.map(|sub| (sub.get_name().to_owned(), about(sub.get_about())));
            words.chain(at.get_positionals().flat_map(values)).collect()
        }
    };
    let mut text = String::new();
    for (word, about) in candidates
        .iter()
        .filter(|(word, _)| word.starts_with(typed))
    {
        text.push_str(&format!("{word}\t{about}\n"));
    }
    let then = if candidates.is_empty() {
        FILES
    } else {
        NO_FILES
    };
    text + &format!(":{then}\n")
}

/// The argument whose value comes after this flag.
fn awaits<'a>(command: &'a Command, flag: &str) -> Option<&'a Arg> {
    let long = flag.strip_prefix("--");
    let short = flag.strip_prefix('-').and_then(|rest| rest.parse().ok());
    command
        .get_arguments()
        .filter(|arg| arg.get_action().takes_values())
        .find(|arg| {
            long.is_some() && arg.get_long() == long || short.is_some() && arg.get_short() == short
        })
}

fn values(arg: &Arg) -> Vec<(String, String)> {
    let known = arg.get_possible_values();
    known
        .iter()
        .map(|value| (value.get_name().to_owned(), about(value.get_help())))
        .collect()
}

fn flags(command: &Command) -> Vec<(String, String)> {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    shown
        .filter_map(|arg| Some((format!("--{}", arg.get_long()?), about(arg.get_help()))))
        .collect()
}

/// The first line.
fn about(text: Option<&clap::builder::StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn words_flags_and_values_are_offered() {
        let mut command = crate::Cli::command();
        command.build();
        let offered = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            let text = answer(&command, &words);
            let lines: Vec<_> = text
                .lines()
                .map(|line| line.split('\t').next().unwrap_or_default().to_owned())
                .collect();
            lines.join(" ")
        };
        assert_eq!(offered(&["dri"]), "drives drive :4");
        assert_eq!(offered(&["kv", "to"]), "top :4");
        assert_eq!(offered(&["drives", "--wh"]), "--why :4");
        assert_eq!(offered(&["drives", "-o", "ya"]), "yaml :4");
        assert_eq!(offered(&["drives", "--output", "j"]), "json :4");
        assert_eq!(offered(&["completions", "z"]), "zsh :4");
        assert_eq!(offered(&["support-bundle", "--file", ""]), ":0");
        assert!(offered(&[]).starts_with("up status "));
    }
}
