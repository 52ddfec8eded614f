//! The parser against any input: it never panics, and what it sees does not depend on where the input is cut.

use kv_endpoint::resp::{Item, Parser, ProtocolError, Step};
use proptest::prelude::*;

/// What a parser makes of a whole connection's bytes.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Item(Item),
    Bytes(Vec<u8>),
    Fault(ProtocolError),
}

/// Parses `input`, given in pieces that end at `cuts`.
fn parse(input: &[u8], cuts: &[usize]) -> Vec<Seen> {
    let mut parser = Parser::default();
    let mut seen = Vec::new();
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    ends.push(input.len());
    ends.sort_unstable();
    let (mut at, mut wanted) = (0, None::<usize>);
    for end in ends {
        loop {
            if let Some(length) = wanted {
                // An argument's bytes, whole or not at all: how they are cut is the socket's business.
                if end.saturating_sub(at) < length {
                    break;
                }
                seen.push(Seen::Bytes(input[at..at + length].to_vec()));
                at += length;
                wanted = None;
            }
            match parser.next(&input[at..end.max(at)]) {
                Ok(Step::Item(used, item)) => {
                    assert!(at + used <= end, "more was used than there is");
                    at += used;
                    if let Item::Argument(length) = item {
                        wanted = Some(length);
                    }
                    seen.push(Seen::Item(item));
                }
                Ok(Step::More(used)) => {
                    assert!(at + used <= end, "more was used than there is");
                    at += used;
                    break;
                }
                Err(fault) => {
                    seen.push(Seen::Fault(fault));
                    return seen;
                }
            }
        }
    }
    seen
}

fn encode(command: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", command.len()).into_bytes();
    for argument in command {
        out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Bytes of the kind that the protocol is made of, so that faults lie deep.
fn likely() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\r\n".to_vec()),
        Just(b"*1\r\n".to_vec()),
        Just(b"*2\r\n$3\r\nGET\r\n".to_vec()),
        Just(b"*-1\r\n".to_vec()),
        Just(b"$3\r\nabc\r\n".to_vec()),
        Just(b"$0\r\n\r\n".to_vec()),
        Just(b"PING \"a\\x4".to_vec()),
        Just(b"'".to_vec()),
        "[*$:+_%-][0-9]{0,3}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn cuts_change_nothing(input in likely(), cuts in prop::collection::vec(any::<usize>(), 0..8)) {
        let every: Vec<usize> = (0..=input.len()).collect();
        let whole = parse(&input, &[]);
        prop_assert_eq!(&parse(&input, &cuts), &whole);
        prop_assert_eq!(&parse(&input, &every), &whole);
    }

    #[test]
    fn any_bytes(input in prop::collection::vec(any::<u8>(), 0..300)) {
        parse(&input, &[]);
    }

    #[test]
    fn commands_come_out_as_they_went_in(
        commands in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..5),
            0..5,
        ),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let input: Vec<u8> = commands.iter().flat_map(|c| encode(c)).collect();
        let mut expected = Vec::new();
        for command in &commands {
            expected.push(Seen::Item(Item::Command(command.len())));
            for argument in command {
                expected.push(Seen::Item(Item::Argument(argument.len())));
                expected.push(Seen::Bytes(argument.clone()));
            }
            expected.push(Seen::Item(Item::End));
        }
        prop_assert_eq!(parse(&input, &cuts), expected);
    }
}

#[test]
fn a_line_without_end_is_refused() {
    let mut parser = Parser::default();
    assert_eq!(parser.next(&[b'a'; 65_535]), Ok(Step::More(0)));
    assert_eq!(parser.next(&[b'a'; 65_536]), Err(ProtocolError::LineLength));
}
