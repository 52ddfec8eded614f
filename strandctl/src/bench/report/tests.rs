use super::*;
use crate::{bench::tally::Blocks, golden::compare, text::Style};
use strand_traces::{Request, Served};

fn totals(requests: u64, hit: usize, hour_ms: u64) -> Totals {
    let mut totals = Totals::default();
    for number in 0..requests {
        let request = Request {
            timestamp_ms: number * hour_ms / (requests - 1),
            input_length: 10_000,
            output_length: 100,
            hash_ids: (0..20).collect(),
        };
        let served = Served {
            hit,
            written: 20 - hit,
        };
        totals.add(&request, served);
    }
    totals
}

fn survey() -> Survey {
    Survey {
        file: "chat.jsonl".into(),
        endless: totals(1_000, 11, 3_600_000),
        blocks: 9_000,
    }
}

fn report(change: impl FnOnce(&mut Run)) -> Report {
    let survey = survey();
    let mut blocks = Blocks {
        right: 8_000,
        ..Blocks::default()
    };
    for number in 1..=1_000u64 {
        blocks.lookups.add(Duration::from_micros(number));
        blocks.gets.add(Duration::from_micros(2_000 + number));
        blocks.sets.add(Duration::from_micros(3_000 + number));
    }
    let mut run = Run {
        through: vec!["127.0.0.1:6379".into()],
        clients: 8,
        speed: Speed::Max,
        seconds: 42.0,
        interrupted: false,
        block_bytes: 2 << 20,
        capacity: 1 << 40,
        prefill_rate: 10_000.0,
        drive: Drive::new(1 << 40, 1.0, 5.0, None).unwrap(),
        today: "2027-01-01T00:00:00Z".parse().unwrap(),
        survey: &survey,
        reference: totals(1_000, 8, 3_600_000),
        latest: Duration::ZERO,
        tally: Tally {
            totals: totals(1_000, 8, 3_600_000),
            blocks,
        },
    };
    change(&mut run);
    Report::of(run)
}

#[test]
fn a_replay_in_words() {
    compare("bench-replay.txt", &report(|_| {}).text(Style::PLAIN));
}

#[test]
fn a_replay_that_did_not_go_well_says_so() {
    let bad = report(|run| {
        run.speed = Speed::Times(10.0);
        run.interrupted = true;
        run.tally.totals = totals(500, 7, 1_800_000);
        run.tally.blocks.wrong = 2;
        run.tally.blocks.wrong_bytes = 4_096;
        run.tally.blocks.lost = 3;
        run.tally.blocks.dropped = 17;
        run.latest = Duration::from_millis(2_500);
        run.drive = Drive::new(1 << 50, 1.0, 5.0, Some(ByteQuantity(1 << 60))).unwrap();
    });
    compare("bench-replay-bad.txt", &bad.text(Style::PLAIN));
}

#[test]
fn a_replay_for_programs() {
    let json = serde_json::to_string_pretty(&report(|_| {})).unwrap();
    compare("bench-replay.json", &(json + "\n"));
}

#[test]
fn nothing_is_divided_by_nothing() {
    let text = report(|run| {
        run.tally = Tally::default();
        run.reference = Totals::default();
    })
    .text(Style::PLAIN);
    assert!(text.contains("Wear: not known"), "{text}");
    assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    assert!(Drive::new(0, 1.0, 5.0, None).is_err());
    assert!(Drive::new(1, 0.0, 5.0, None).is_err());
    assert!(Drive::new(1, 1.0, f64::NAN, None).is_err());
}
