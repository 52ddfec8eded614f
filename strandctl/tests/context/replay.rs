use super::bed::{Bed, PATIENCE, Said, command, run, through};
use serde_json::Value;
use std::{fs, time::Instant};
use strand_traces::{Infinite, Requests, replay as model};
use tokio::{io::AsyncReadExt, time::timeout};

/// A small trace of conversations that grow.
async fn trace(bed: &Bed) -> String {
    let file = bed.path("trace.jsonl");
    let words = [
        "bench",
        "trace",
        "--requests",
        "60",
        "--opening-tokens",
        "1500",
        "--sessions-per-second",
        "0.2",
        "-o",
        &file,
    ];
    let said = run(&words, b"").await;
    assert_eq!((said.code, said.out.len()), (0, 0), "{said:?}");
    assert!(
        said.err.starts_with("60 requests in ") && said.err.ends_with(" %\n"),
        "{said:?}"
    );
    file
}

async fn replay(door: &[String], file: &str, more: &[&str]) -> Said {
    let words = [
        "bench",
        "replay",
        file,
        "--block-bytes",
        "20000",
        "--capacity",
        "1Gi",
    ];
    through(door, &[&words[..], more].concat(), b"").await
}

fn lacks_nothing(report: &Value) {
    assert_eq!(report["blocksWrong"], 0, "{report}");
    assert_eq!(report["blocksLost"], 0, "{report}");
    assert_eq!(report["writesDropped"], 0, "{report}");
    assert_eq!(
        report["blocksRight"], report["served"]["blocksHit"],
        "{report}"
    );
    let latency = &report["latencyMilliseconds"];
    assert_eq!(latency["lookup"]["count"], 60, "{report}");
    assert_eq!(
        latency["get"]["count"], report["served"]["blocksHit"],
        "{report}"
    );
    let written = report["served"]["blocksAsked"].as_u64().unwrap()
        - report["served"]["blocksHit"].as_u64().unwrap();
    assert_eq!(latency["set"]["count"], written, "{report}");
}

#[tokio::test]
async fn what_keeps_everything_hits_what_the_models_hit() {
    let bed = Bed::new().await;
    let file = trace(&bed).await;
    let requests: Vec<_> = Requests::new(&fs::read(&file).unwrap()[..])
        .map(Result::unwrap)
        .collect();
    let expected = model(&mut Infinite::default(), &requests);
    assert!(expected.blocks_hit > 100, "{expected:?}");
    for door in bed.doors() {
        let said = replay(
            &door,
            &file,
            &["--clients", "1", "-o", "json", "--prefix", "first"],
        )
        .await;
        assert_eq!(said.code, 0, "{}", said.err);
        let report = said.json();
        lacks_nothing(&report);
        assert_eq!(report["served"]["blocksHit"], expected.blocks_hit);
        assert_eq!(
            report["served"]["bytesWritten"],
            expected.bytes_written(20_000)
        );
        assert_eq!(
            (&report["hitsOfLru"], &report["writtenOfLru"]),
            (&1.0.into(), &1.0.into())
        );
        assert_eq!(report["served"], report["endless"]);

        let again = replay(
            &door,
            &file,
            &["-o", "json", "--prefix", "first", "--clients", "4"],
        )
        .await
        .json();
        lacks_nothing(&again);
        assert_eq!(
            again["served"]["hitRate"], 1.0,
            "everything is there by now"
        );
        assert_eq!(again["clients"], 4);
        let cold = replay(&door, &file, &["-o", "json", "--clients", "1"])
            .await
            .json();
        assert_eq!(
            cold["served"], report["served"],
            "another replay finds nothing of this one"
        );
    }
    let text = replay(&bed.doors()[0], &file, &[]).await;
    assert!(text.text().starts_with("60 of 60 requests in "), "{text:?}");
}

#[tokio::test]
async fn a_wrong_byte_is_counted_and_ends_with_1() {
    let bed = Bed::new().await;
    let file = trace(&bed).await;
    for door in bed.doors() {
        let flags = ["--prefix", "p", "--clients", "1"];
        assert_eq!(replay(&door, &file, &flags).await.code, 0);
        let mut block = through(&door, &["kv", "get", "p:0"], b"").await.out;
        assert_eq!(block.len(), 20_000);
        block[12_345] ^= 0x10;
        assert_eq!(through(&door, &["kv", "put", "p:0"], &block).await.code, 0);
        let said = replay(&door, &file, &[&flags[..], &["-o", "json"]].concat()).await;
        assert_eq!(said.code, 1, "{said:?}");
        let report = said.json();
        let wrong = report["blocksWrong"].as_u64().unwrap();
        assert!(wrong > 0, "{report}");
        assert_eq!(report["bytesWrong"], wrong);

        // Another block's bytes, and fewer of them.
        let other = through(&door, &["kv", "get", "p:1"], b"").await.out;
        through(&door, &["kv", "put", "p:0"], &other[..19_999]).await;
        let said = replay(&door, &file, &flags).await;
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.text().contains(" BLOCKS WERE WRONG, in "), "{said:?}");
    }
}

#[tokio::test]
async fn without_an_agent_writes_are_told_to_be_dropped() {
    let bed = Bed::new().await;
    let file = trace(&bed).await;
    bed.store.set_down(true);
    let report = replay(&bed.doors()[0], &file, &["-o", "json"]).await.json();
    assert_eq!(report["served"]["blocksHit"], 0);
    assert_eq!(report["writesDropped"], report["served"]["blocksAsked"]);
}

#[tokio::test]
async fn all_pods_of_a_rack_are_replayed_through() {
    let (bed, other) = (Bed::new().await, Bed::new().await);
    let file = trace(&bed).await;
    let endpoint = |pod: &str, resp| {
        format!(r#"{{"pod":"{pod}","node":"n","resp":"{resp}","native":"/x","pid":1}}"#)
    };
    let rack = format!(
        r#"{{"endpoints":[{},{}]}}"#,
        endpoint("pod-1", bed.resp),
        endpoint("pod-2", other.resp)
    );
    fs::write(bed.dir.path().join("rack.json"), rack).unwrap();
    let door = ["--rack".into(), bed.dir.path().display().to_string()];
    let report = replay(&door, &file, &["-o", "json"]).await.json();
    assert_eq!(report["through"], serde_json::json!([bed.resp, other.resp]));
    for resp in [bed.resp, other.resp] {
        let stat = run(
            &["kv", "stat", "-o", "json", "--endpoint", &resp.to_string()],
            b"",
        )
        .await
        .json();
        assert!(stat["stored"].as_u64().unwrap() > 0, "{stat}");
    }
}

#[tokio::test]
async fn requests_come_no_sooner_than_their_time() {
    let bed = Bed::new().await;
    let file = bed.path("slow.jsonl");
    let line = |ms: u64| {
        format!(
            "{{\"timestamp\":{ms},\"input_length\":512,\"output_length\":1,\"hash_ids\":[7]}}\n"
        )
    };
    fs::write(&file, line(1_000) + &line(4_000)).unwrap();
    let begun = Instant::now();
    // One client: the second request finds what the first has written.
    let options = ["--speed", "x10", "--clients", "1", "-o", "json"];
    let report = replay(&bed.doors()[0], &file, &options).await.json();
    assert!(begun.elapsed().as_secs_f64() >= 0.3);
    assert_eq!(
        (&report["speed"], &report["trace"]["spanSeconds"]),
        (&"x10".into(), &3.0.into())
    );
    assert_eq!(report["served"]["hitRate"], 0.5);
}

#[tokio::test]
async fn ctrl_c_ends_it_with_a_report() {
    let bed = Bed::new().await;
    let file = bed.path("long.jsonl");
    let line = |ms: u64| {
        format!(
            "{{\"timestamp\":{ms},\"input_length\":512,\"output_length\":1,\"hash_ids\":[{ms}]}}\n"
        )
    };
    fs::write(&file, line(0) + &line(86_400_000)).unwrap();
    let resp = bed.resp.to_string();
    let words = [
        "bench",
        "replay",
        &file,
        "--block-bytes",
        "1Ki",
        "--capacity",
        "1Mi",
        "--speed",
        "trace",
        "--endpoint",
        &resp,
        "--prefix",
        "c",
    ];
    let mut child = command(&words).spawn().unwrap();
    let served = async {
        while run(&["kv", "stat", "c:0", "--endpoint", &resp], b"")
            .await
            .code
            != 0
        {}
    };
    timeout(PATIENCE, served)
        .await
        .expect("the first request is not served");
    let pid = child.id().unwrap().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let ended = timeout(PATIENCE, child.wait())
        .await
        .expect("it does not end")
        .unwrap();
    assert_eq!(ended.code(), Some(0));
    let mut out = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .await
        .unwrap();
    assert!(
        out.contains(" of 2 requests in ") && out.contains(", then interrupted\n"),
        "{out}"
    );
}

#[tokio::test]
async fn what_cannot_be_replayed_is_refused_before_anything_is_sent() {
    let bed = Bed::new().await;
    let [resp, _] = bed.doors();
    let file = bed.path("bad.jsonl");
    fs::write(
        &file,
        fs::read_to_string(trace(&bed).await).unwrap() + "{}\n",
    )
    .unwrap();
    let said = replay(&resp, &file, &[]).await;
    assert_eq!(said.code, 2);
    assert!(
        said.err
            .contains("bad.jsonl: line 61 is no request: missing field `timestamp`"),
        "{said:?}"
    );
    let stat = through(&resp, &["kv", "stat", "-o", "json"], b"")
        .await
        .json();
    assert_eq!(stat["stored"], 0);

    fs::write(&file, "").unwrap();
    let said = replay(&resp, &file, &[]).await;
    assert!(
        said.code == 2 && said.err.contains("asks for no block; make a trace with"),
        "{said:?}"
    );
    let said = replay(&resp, "/nowhere", &[]).await;
    assert!(
        said.code == 2 && said.err.contains("the trace /nowhere cannot be opened"),
        "{said:?}"
    );
    for (flag, bad) in [
        ("--speed", "fast"),
        ("--dwpd", "0"),
        ("--prefill-rate", "-1"),
        ("--clients", "0"),
    ] {
        let said = replay(&resp, &file, &[&format!("{flag}={bad}")]).await;
        assert!(said.code == 2 && said.err.contains(flag), "{said:?}");
    }
    let said = run(&["bench", "trace", "--second-turn", "1.5"], b"").await;
    assert_eq!(
        said.err,
        "strandctl: --second-turn is 1.5; a probability is 0 to 1\n"
    );
}

#[tokio::test]
async fn a_made_trace_is_the_same_each_time() {
    let words = ["bench", "trace", "--requests", "20", "--seed", "5"];
    let (one, two) = (run(&words, b"").await, run(&words, b"").await);
    assert_eq!(one.text().lines().count(), 20);
    assert_eq!(one.out, two.out);
    let other = run(&["bench", "trace", "--requests", "20", "--seed", "6"], b"").await;
    assert_ne!(one.out, other.out);
}
