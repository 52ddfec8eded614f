//! The form of a trace, to the byte, and what is said of lines that do not have it.

use proptest::prelude::*;
use std::io::{BufReader, Read};
use strand_traces::{Request, Requests};

/// The first lines of a public trace look like these.
const TRACE: &str = r#"{"timestamp": 0, "input_length": 2290, "output_length": 316, "hash_ids": [0, 42, 43, 44, 45]}
{"timestamp": 3000, "input_length": 915, "output_length": 355, "hash_ids": [0, 462]}
"#;

fn read(text: &[u8]) -> Result<Vec<Request>, String> {
    Requests::new(text)
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())
}

fn refusal(text: &str) -> String {
    read(text.as_bytes()).expect_err(text)
}

#[test]
fn lines_are_read_and_written_as_they_are_published() {
    let requests = read(TRACE.as_bytes()).unwrap();
    assert_eq!(
        requests[1],
        Request {
            timestamp_ms: 3000,
            input_length: 915,
            output_length: 355,
            hash_ids: vec![0, 462],
        }
    );
    let again: String = requests.iter().map(|r| r.to_line() + "\n").collect();
    assert_eq!(again, TRACE);
    assert_eq!(requests[0].tokens_in(2), 1024);
    assert_eq!(requests[0].tokens_in(5), 2290);
}

#[test]
fn other_tools_habits_are_understood() {
    let text = "\r\n{\"hash_ids\":[],\"output_length\":1,\"input_length\":9,\"timestamp\":27.75,\"session\":\"a\"}\r\n\n";
    let requests = read(text.as_bytes()).unwrap();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].timestamp_ms, 27);
    let no_last_end = TRACE.trim_end();
    assert_eq!(read(no_last_end.as_bytes()).unwrap().len(), 2);
    assert_eq!(read(b"").unwrap(), []);
}

#[test]
fn a_line_that_is_no_request_is_named_with_what_to_do() {
    assert_eq!(
        refusal(&format!("{TRACE}\n{{\"timestamp\": 1}}\n")),
        "line 4 is no request: missing field `input_length` (column 16); each line must be one JSON object like \
         {\"timestamp\": 3000, \"input_length\": 1024, \"output_length\": 100, \"hash_ids\": [0, 17]}"
    );
    for bad in ["[1]", "{\"timestamp\": 0", "\u{1}\u{2}", "id,time\n0,1"] {
        assert!(refusal(bad).starts_with("line 1 is no request: "), "{bad}");
    }
    let line = |timestamp: &str, id: &str| {
        format!(
            "{{\"timestamp\":{timestamp},\"input_length\":1,\"output_length\":1,\"hash_ids\":[{id}]}}"
        )
    };
    assert!(refusal(&line("-1", "0")).contains("timestamp is -1"));
    assert!(refusal(&line("0", "-7")).contains("invalid value: integer `-7`"));
    assert_eq!(
        refusal(&format!("{}\n{}", line("5", "0"), line("4", "0"))),
        "line 2 is out of order: its timestamp is 4 ms, after one of 5 ms; sort the lines by timestamp"
    );
}

#[test]
fn an_endless_line_ends_the_reading() {
    let endless = BufReader::new(std::io::repeat(b' '));
    let mut requests = Requests::new(endless);
    let error = requests.next().unwrap().unwrap_err().to_string();
    assert!(
        error.starts_with("line 1 is no request: it has more than 16 MiB"),
        "{error}"
    );
    assert!(requests.next().is_none());
}

#[test]
fn a_file_that_fails_is_named_by_its_line() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the medium is gone"))
        }
    }
    let input = BufReader::new(TRACE.as_bytes().chain(Broken));
    let last = Requests::new(input).last().unwrap().unwrap_err();
    assert_eq!(
        last.to_string(),
        "line 3 cannot be read: the medium is gone; check the file and its medium"
    );
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        mut timestamp_ms in 0u64..1 << 50,
        rows in prop::collection::vec((0u64..1 << 40, any::<u64>(), any::<u64>(), prop::collection::vec(any::<u64>(), 0..20)), 0..20),
    ) {
        let mut requests = Vec::new();
        for (later, input_length, output_length, hash_ids) in rows {
            timestamp_ms += later;
            requests.push(Request { timestamp_ms, input_length, output_length, hash_ids });
        }
        let text: String = requests.iter().map(|r| r.to_line() + "\n").collect();
        prop_assert_eq!(read(text.as_bytes()).unwrap(), requests);
    }

    #[test]
    fn no_bytes_bring_the_reader_down(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
    }
}
