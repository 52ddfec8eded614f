//! What a person types at a rack that is up.

use std::time::Duration;

/// What can be typed, for people.
pub const HELP: &str = "  N SCRIPT           run a shell script in machine N
  power N on|off     plug in its power cord, or pull it
  link N up|down     its link to the other machines
  delay N MS         hold back its frames so long
  heal               all links as they were
  pull SERIAL        a drive, out of its running machine
  plug SERIAL        in again, with its bytes
  spoil SERIAL N     make its sector N (512 bytes) unreadable
  mend SERIAL        readable again
  quit               take the rack down, with all that is on its drives";

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub enum Word<'a> {
    Run(usize, &'a str),
    Power(usize, bool),
    Link(usize, bool),
    Delay(usize, Duration),
    Heal,
    Pull(&'a str),
    Plug(&'a str),
    Spoil(&'a str, u64),
    Mend(&'a str),
    Help,
    Quit,
}

/// Reads a line; machines count from 1 in it, and from 0 in what is returned.
///
/// # Errors
/// A sentence for who typed it.
pub fn read(line: &str, machines: usize) -> Result<Word<'_>, String> {
    let machine = |word: &str| {
        let number = word.parse().ok().filter(|n| (1..=machines).contains(n));
        number
            .map(|n| n - 1)
            .ok_or_else(|| format!("{word}: there are machines 1 to {machines}"))
    };
    let number = |word: &str| {
        let number = word.parse::<u64>();
        number.map_err(|_| format!("{word}: not a number"))
    };
    let words: Vec<&str> = line.split_whitespace().collect();
    Ok(match words[..] {
        ["power", n, "on"] => Word::Power(machine(n)?, true),
        ["power", n, "off"] => Word::Power(machine(n)?, false),
        ["link", n, "up"] => Word::Link(machine(n)?, true),
        ["link", n, "down"] => Word::Link(machine(n)?, false),
        ["delay", n, by] => Word::Delay(machine(n)?, Duration::from_millis(number(by)?)),
        ["heal"] => Word::Heal,
        ["pull", serial] => Word::Pull(serial),
        ["plug", serial] => Word::Plug(serial),
        ["spoil", serial, sector] => Word::Spoil(serial, number(sector)?),
        ["mend", serial] => Word::Mend(serial),
        ["help"] => Word::Help,
        ["quit" | "exit"] => Word::Quit,
        [first, _, ..] if first.bytes().all(|b| b.is_ascii_digit()) => {
            let script = line.trim_start().strip_prefix(first).unwrap_or_default();
            Word::Run(machine(first)?, script.trim_start())
        }
        _ => return Err(format!("{line}: not understood; `help` says what is")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_wrong_ones_say_what_is_wrong() {
        assert_eq!(read(" 2  nvme  list ", 3), Ok(Word::Run(1, "nvme  list ")));
        assert_eq!(read("power 3 off", 3), Ok(Word::Power(2, false)));
        let delay = Duration::from_millis(40);
        assert_eq!(read("delay 1 40", 3), Ok(Word::Delay(0, delay)));
        assert_eq!(read("spoil G1D0 8", 3), Ok(Word::Spoil("G1D0", 8)));
        for (wrong, said) in [
            ("power 4 off", "4: there are machines 1 to 3"),
            ("0 ls", "0: there are machines 1 to 3"),
            ("delay 1 long", "long: not a number"),
            (
                "nvme list",
                "nvme list: not understood; `help` says what is",
            ),
            ("2", "2: not understood; `help` says what is"),
        ] {
            assert_eq!(read(wrong, 3), Err(said.to_owned()));
        }
    }
}
