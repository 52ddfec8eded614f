//! Random commands, written in random pieces, against a map in this test; and random bytes, which must harm nobody.

#![allow(clippy::unwrap_used, reason = "all of this is test")]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use kv_endpoint::Config;
use proptest::prelude::*;
use support::{PATIENCE, Server, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

#[derive(Clone, Debug)]
enum Call {
    Set(u8, usize, bool),
    Mset(Vec<(u8, usize)>),
    Get(u8),
    Mget(Vec<u8>),
    Exists(Vec<u8>),
    Del(Vec<u8>),
    Strlen(u8),
    Hello(bool),
    Flush,
    Unknown(usize),
    WrongArity,
}

fn call() -> impl Strategy<Value = Call> {
    let key = 0..6_u8;
    // Around what is gathered, read at once, and given as a slot.
    let length = prop_oneof![
        4 => 0..100_usize,
        1 => 4090..4100_usize,
        1 => 16_380..16_390_usize,
        1 => 70_000..70_010_usize,
        1 => 1_048_570..1_048_580_usize,
        // More than the arena.
        1 => 2_097_150..2_097_160_usize,
    ];
    let keys = prop::collection::vec(key.clone(), 1..4);
    prop_oneof![
        4 => (key.clone(), length.clone(), any::<bool>()).prop_map(|(k, n, nx)| Call::Set(k, n, nx)),
        1 => prop::collection::vec((key.clone(), length), 1..4).prop_map(Call::Mset),
        4 => key.clone().prop_map(Call::Get),
        1 => keys.clone().prop_map(Call::Mget),
        1 => keys.clone().prop_map(Call::Exists),
        1 => keys.prop_map(Call::Del),
        1 => key.prop_map(Call::Strlen),
        1 => any::<bool>().prop_map(Call::Hello),
        1 => Just(Call::Flush),
        1 => (0..70_000_usize).prop_map(Call::Unknown),
        1 => Just(Call::WrongArity),
    ]
}

#[derive(Default)]
struct Model {
    values: BTreeMap<u8, Vec<u8>>,
    three: bool,
    writes: u64,
    sent: Vec<u8>,
    expected: Vec<u8>,
}

impl Model {
    fn send(&mut self, words: &[&[u8]]) {
        self.sent
            .extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            self.sent
                .extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            self.sent.extend_from_slice(word);
            self.sent.extend_from_slice(b"\r\n");
        }
    }

    fn send_keys(&mut self, name: &[u8], keys: &[u8]) {
        let keys: Vec<[u8; 2]> = keys.iter().map(|k| [b'k', *k]).collect();
        let words: Vec<&[u8]> = std::iter::once(name)
            .chain(keys.iter().map(|k| &k[..]))
            .collect();
        self.send(&words);
    }

    fn line(&mut self, line: &str) {
        self.expected.extend_from_slice(line.as_bytes());
        self.expected.extend_from_slice(b"\r\n");
    }

    fn value(&mut self, key: u8) {
        match self.values.get(&key) {
            Some(value) => {
                let value = value.clone();
                self.line(&format!("${}", value.len()));
                self.expected.extend_from_slice(&value);
                self.expected.extend_from_slice(b"\r\n");
            }
            None => self.nil(),
        }
    }

    fn empty(&mut self) {
        self.line("-ERR an empty value cannot be stored; values have at least one byte");
    }

    fn nil(&mut self) {
        self.line(if self.three { "_" } else { "$-1" });
    }

    fn fresh(&mut self, length: usize) -> Vec<u8> {
        self.writes += 1;
        support::client::pattern(length, self.writes)
    }

    fn call(&mut self, call: &Call) {
        match call {
            Call::Set(key, length, only_if_absent) => {
                let value = self.fresh(*length);
                let mut words: Vec<&[u8]> = vec![b"SET", b"k?", &value];
                let name = [b'k', *key];
                words[1] = &name;
                if *only_if_absent {
                    words.push(b"NX");
                }
                self.send(&words);
                if *length == 0 {
                    return self.empty();
                }
                if *only_if_absent && self.values.contains_key(key) {
                    return self.nil();
                }
                self.values.insert(*key, value);
                self.line("+OK");
            }
            Call::Mset(pairs) => {
                let mut words = vec![b"MSET".to_vec()];
                for (key, length) in pairs {
                    let value = self.fresh(*length);
                    words.push(vec![b'k', *key]);
                    words.push(value.clone());
                    if *length > 0 {
                        self.values.insert(*key, value);
                    }
                }
                let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                self.send(&words);
                match pairs.iter().any(|(_, length)| *length == 0) {
                    true => self.empty(),
                    false => self.line("+OK"),
                }
            }
            Call::Get(key) => {
                self.send_keys(b"GET", &[*key]);
                self.value(*key);
            }
            Call::Mget(keys) => {
                self.send_keys(b"MGET", keys);
                self.line(&format!("*{}", keys.len()));
                keys.iter().for_each(|key| self.value(*key));
            }
            Call::Exists(keys) => {
                self.send_keys(b"EXISTS", keys);
                let found = keys.iter().filter(|k| self.values.contains_key(k)).count();
                self.line(&format!(":{found}"));
            }
            Call::Del(keys) => {
                self.send_keys(b"DEL", keys);
                let gone = keys
                    .iter()
                    .filter(|k| self.values.remove(k).is_some())
                    .count();
                self.line(&format!(":{gone}"));
            }
            Call::Strlen(key) => {
                self.send_keys(b"STRLEN", &[*key]);
                let length = self.values.get(key).map_or(0, Vec::len);
                self.line(&format!(":{length}"));
            }
            Call::Hello(three) => {
                self.three = *three;
                self.send(&[b"HELLO", if *three { b"3" } else { b"2" }]);
                let (map, version) = if *three { ("%7", 3) } else { ("*14", 2) };
                self.line(map);
                for line in [
                    "$6", "server", "$5", "redis", "$7", "version", "$5", "7.2.4",
                ] {
                    self.line(line);
                }
                self.line("$5\r\nproto");
                self.line(&format!(":{version}"));
                self.line("$2\r\nid\r\n:1\r\n$4\r\nmode\r\n$10\r\nstandalone");
                self.line("$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0");
            }
            Call::Flush => {
                self.send(&[b"FLUSHDB"]);
                self.values.clear();
                self.line("+OK");
            }
            Call::Unknown(length) => {
                self.send(&[b"NOPE", &vec![b'\r'; *length]]);
                self.line("-ERR unknown command 'NOPE'; COMMAND LIST tells which there are");
            }
            Call::WrongArity => {
                self.send(&[b"SET", b"k"]);
                self.line("-ERR wrong number of arguments for 'set' command");
            }
        }
    }
}

async fn conversation(model: Model, cuts: Vec<usize>) -> Vec<u8> {
    let server = Server::start(Config::default(), 2).await;
    let (mut reader, mut writer) = TcpStream::connect(server.nil).await.unwrap().into_split();
    let sent = model.sent;
    let writing = tokio::spawn(async move {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (sent.len() + 1)).collect();
        ends.push(sent.len());
        ends.sort_unstable();
        let mut from = 0;
        for end in ends {
            writer.write_all(&sent[from..end]).await.unwrap();
            tokio::task::yield_now().await;
            from = end;
        }
        writer.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    timeout(PATIENCE, reader.read_to_end(&mut got))
        .await
        .expect("it hangs")
        .unwrap();
    writing.await.unwrap();
    until("all room is given back", || server.store.in_use() == (0, 0)).await;
    got
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn commands_do_what_they_say(
        calls in prop::collection::vec(call(), 1..25),
        cuts in prop::collection::vec(any::<usize>(), 0..10),
    ) {
        let mut model = Model::default();
        calls.iter().for_each(|call| model.call(call));
        let expected = model.expected.clone();
        let got = Runtime::new().unwrap().block_on(conversation(model, cuts));
        let same = got.iter().zip(&expected).take_while(|(a, b)| a == b).count();
        prop_assert!(
            got == expected,
            "from byte {same}: {} instead of {}",
            got[same..].iter().take(80).copied().collect::<Vec<_>>().escape_ascii(),
            expected[same..].iter().take(80).copied().collect::<Vec<_>>().escape_ascii(),
        );
    }
}

/// Panics of connections, which end with them alone and would go unseen.
static PANICS: AtomicUsize = AtomicUsize::new(0);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_bytes_harm_nobody(
        pieces in prop::collection::vec(
            prop_oneof![
                "(SET|GET|MSET|SCAN|CLIENT|HELLO|AUTH|CONFIG|COMMAND|INFO|EXPIRE|SETEX|EXISTS|DEL|RESET|SELECT)( [-a-z0-9*\\[\\\\\"']{0,6}){0,5}\r\n".prop_map(String::into_bytes),
                "[*$][0-9]{1,2}\r\n".prop_map(String::into_bytes),
                prop::collection::vec(any::<u8>(), 0..20),
            ],
            1..20,
        ),
        padded in any::<bool>(),
    ) {
        std::panic::set_hook(Box::new(|panic| {
            eprintln!("{panic}");
            PANICS.fetch_add(1, Ordering::SeqCst);
        }));
        Runtime::new().unwrap().block_on(async {
            let server = Server::start(Config::default(), 2).await;
            let address = if padded { server.padded } else { server.nil };
            let mut client = TcpStream::connect(address).await.unwrap();
            // The endpoint may have had enough before all of it is written.
            let _ = client.write_all(&pieces.concat()).await;
            let _ = client.shutdown().await;
            let mut answers = Vec::new();
            let _ = timeout(PATIENCE, client.read_to_end(&mut answers)).await.expect("it hangs");
            until("it is closed", || server.metrics.connections.get() == 0).await;
            assert_eq!(server.store.in_use(), (0, 0));
        });
        let _ = std::panic::take_hook();
        prop_assert_eq!(PANICS.load(Ordering::SeqCst), 0);
    }
}
