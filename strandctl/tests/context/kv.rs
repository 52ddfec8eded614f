use super::bed::{Bed, command, run, through};
use kv_endpoint::Config;
use std::fs;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpSocket},
};

/// Every byte there is, more than a socket takes at once.
fn value() -> Vec<u8> {
    (0..3_000_000u32).map(|at| (at ^ (at >> 8)) as u8).collect()
}

#[tokio::test]
async fn a_block_comes_back_to_the_byte_through_either_door() {
    let bed = Bed::new().await;
    for door in bed.doors() {
        let (from, to) = (bed.path("from"), bed.path("to"));
        fs::write(&from, value()).unwrap();
        let put = through(&door, &["kv", "put", "a", &from], b"").await;
        assert_eq!((put.code, put.err.as_str()), (0, "a: 2.86Mi written\n"));
        let get = through(&door, &["kv", "get", "a", &to], b"").await;
        assert_eq!((get.code, get.out.len(), get.err.as_str()), (0, 0, ""));
        assert!(fs::read(&to).unwrap() == value());

        let piped = through(&door, &["kv", "put", "b"], b"\0\r\n$-1\r\n\xff").await;
        assert_eq!(
            (piped.code, piped.err.as_str()),
            (0, "b: 9 bytes written\n")
        );
        let get = through(&door, &["kv", "get", "b"], b"").await;
        assert_eq!((get.code, &get.out[..]), (0, &b"\0\r\n$-1\r\n\xff"[..]));

        let empty = through(&door, &["kv", "put", "e"], b"").await;
        let refused = "strandctl: there is nothing to put: a block has 1 byte at least\n";
        assert_eq!((empty.code, empty.err.as_str()), (2, refused));
    }
}

#[tokio::test]
async fn a_block_may_be_larger_than_the_arena() {
    let bed = Bed::new().await;
    let file = bed.path("large");
    fs::write(&file, value().repeat(27)).unwrap();
    for door in bed.doors() {
        let put = through(&door, &["kv", "put", "large", &file], b"").await;
        assert_eq!(put.code, 0, "{put:?}");
        let get = through(&door, &["kv", "get", "large"], b"").await;
        assert_eq!(get.code, 0, "{}", get.err);
        assert!(get.out == value().repeat(27));
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_and_ends_with_1() {
    let bed = Bed::new().await;
    for door in bed.doors() {
        for command in ["get", "stat"] {
            let said = through(&door, &["kv", command, "nowhere"], b"").await;
            assert_eq!((said.code, said.out.len()), (1, 0), "{said:?}");
            assert_eq!(
                said.err,
                "strandctl: no block nowhere in this pod's namespace\n"
            );
        }
        let kept = bed.path("kept");
        fs::write(&kept, "before").unwrap();
        let said = through(&door, &["kv", "get", "nowhere", &kept], b"").await;
        assert_eq!(said.code, 1);
        assert_eq!(
            fs::read(&kept).unwrap(),
            b"before",
            "a miss leaves the file alone"
        );
    }
}

#[tokio::test]
async fn a_block_and_a_namespace_are_described() {
    let bed = Bed::new().await;
    for door in bed.doors() {
        through(&door, &["kv", "put", "long"], &value()).await;
        through(&door, &["kv", "put", "short", "--ttl", "600"], b"12345").await;
        let long = through(&door, &["kv", "stat", "long"], b"").await;
        assert_eq!(
            long.text(),
            "Key     long\nLength  2.86Mi (3000000 bytes)\nLife    no end set\n"
        );
        let short = through(&door, &["kv", "stat", "short", "-o", "json"], b"")
            .await
            .json();
        assert_eq!(short["lengthBytes"], 5);
        let left = short["leftMilliseconds"].as_u64().unwrap();
        assert!((1..=600_000).contains(&left), "{short}");

        through(&door, &["kv", "get", "long"], b"").await;
        through(&door, &["kv", "get", "nowhere"], b"").await;
        let all = through(&door, &["kv", "stat"], b"").await;
        assert!(
            all.text()
                .contains("Agent   up\nHolds   2 blocks, 2.86Mi\n"),
            "{all:?}"
        );
        let json = through(&door, &["kv", "stat", "-o", "json"], b"")
            .await
            .json();
        assert_eq!(
            (&json["blocks"], &json["bytes"]),
            (&2.into(), &3_000_005.into())
        );
        if door[0] == "--endpoint" {
            assert!(
                all.text()
                    .contains("\nReads   1 hits, 1 misses: 50.0 % hit"),
                "{all:?}"
            );
            assert_eq!((&json["stored"], &json["dropped"]), (&2.into(), &0.into()));
        }
    }
}

#[tokio::test]
async fn without_an_agent_it_says_so() {
    let bed = Bed::new().await;
    let [resp, _] = bed.doors();
    through(&resp, &["kv", "put", "a"], b"1").await;
    bed.store.set_down(true);
    let put = through(&resp, &["kv", "put", "b"], b"2").await;
    assert_eq!(put.code, 1);
    assert!(
        put.err
            .starts_with("strandctl: b was not kept: its agent is away ("),
        "{put:?}"
    );
    let get = through(&resp, &["kv", "get", "a"], b"").await;
    assert_eq!(get.code, 1);
    assert!(
        get.err.contains("; everything misses until it is back"),
        "{get:?}"
    );
    let stat = through(&resp, &["kv", "stat"], b"").await;
    assert_eq!(stat.code, 0);
    assert!(
        stat.text().contains("Agent   away: ") && !stat.text().contains("Holds"),
        "{stat:?}"
    );
}

#[tokio::test]
async fn a_pod_is_found_in_its_rack() {
    let bed = Bed::new().await;
    let rack = format!(
        r#"{{"pid": 1, "endpoints": [
            {{"pod": "pod-1", "node": "node-1", "resp": "127.0.0.1:1", "native": "/nowhere", "pid": 2}},
            {{"pod": "pod-2", "node": "node-2", "resp": "{}", "native": "/nowhere", "pid": 3}}]}}"#,
        bed.resp
    );
    fs::write(bed.dir.path().join("rack.json"), rack).unwrap();
    let dir = bed.dir.path().display().to_string();
    let said = run(&["kv", "put", "k", "--rack", &dir, "--pod", "pod-2"], b"v").await;
    assert_eq!(said.code, 0, "{said:?}");
    let said = run(&["kv", "get", "k", "--rack", &dir], b"").await;
    assert_eq!(said.code, 2);
    assert_eq!(
        said.err,
        "strandctl: the rack has several pods; name one with --pod: pod-1, pod-2\n"
    );
}

#[tokio::test]
async fn a_password_is_asked_for_and_given() {
    let bed = Bed::with(Config {
        password: Some("open sesame".into()),
        ..Config::default()
    })
    .await;
    let [resp, _] = bed.doors();
    let said = through(&resp, &["kv", "put", "k"], b"v").await;
    assert_eq!(said.code, 2);
    assert!(
        said.err
            .ends_with("; give the pod's password with --password-file\n"),
        "{said:?}"
    );
    let file = bed.path("password");
    fs::write(&file, "open sesame\n").unwrap();
    let said = through(&resp, &["kv", "put", "k", "--password-file", &file], b"v").await;
    assert_eq!(said.code, 0, "{said:?}");
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_in_words() {
    let bed = Bed::new().await;
    let [resp, socket] = bed.doors();
    let said = run(&["kv", "get", "k"], b"").await;
    assert_eq!(said.code, 2);
    assert!(
        said.err
            .contains("say which pod's way in to take: --endpoint HOST:PORT"),
        "{said:?}"
    );
    let long = "k".repeat(1025);
    let refused = "strandctl: a key has 1 to 1024 bytes; this one has ";
    for key in ["", &long] {
        let said = through(&resp, &["kv", "put", key], b"v").await;
        assert_eq!(
            (said.code, said.err),
            (2, format!("{refused}{}\n", key.len()))
        );
    }
    let said = through(&resp, &["kv", "put", "k", "/nowhere/file"], b"").await;
    assert!(
        said.code == 2 && said.err.contains("/nowhere/file cannot be read"),
        "{said:?}"
    );
    through(&resp, &["kv", "put", "k"], b"v").await;
    let said = through(&resp, &["kv", "get", "k", "/nowhere/file"], b"").await;
    assert!(
        said.code == 2 && said.err.contains("/nowhere/file cannot be written"),
        "{said:?}"
    );

    // Nobody listens there, and nobody else gets it meanwhile.
    let silent = TcpSocket::new_v4().unwrap();
    silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let said = run(&["kv", "get", "k", "--endpoint", &address], b"").await;
    assert_eq!(said.code, 2);
    assert!(
        said.err.starts_with(&format!(
            "strandctl: no endpoint answers at {address}; is the pod up"
        )),
        "{said:?}"
    );
    fs::remove_file(&bed.socket).unwrap();
    let said = through(&socket, &["kv", "get", "k"], b"").await;
    assert_eq!(said.code, 2);
    assert!(said.err.contains(" does not open: "), "{said:?}");
}

#[tokio::test]
async fn a_server_that_speaks_something_else_is_told_from_an_endpoint() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let words = ["kv", "get", "k", "--endpoint", &address];
    let answers: [&[u8]; 4] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"$99999999999999\r\n",
        b"*1\r\n$5\r\nab",
        b"",
    ];
    for answer in answers {
        let mut child = command(&words).spawn().unwrap();
        drop(child.stdin.take());
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, answer)
            .await
            .unwrap();
        let mut asked = [0; 4];
        stream.read_exact(&mut asked).await.unwrap();
        drop(stream);
        let output = child.wait_with_output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.starts_with("strandctl: ") && said.len() > 40, "{said}");
    }
}
