//! Exports and connects in a guest, with the code that the agent has for it. What it shall do and what it sees are JSON.
//!
//! - `rack-fabric export LISTEN`: makes the kernel export what the list on standard input says, and nothing else of ours
//! - `rack-fabric exports LISTEN`: what is exported
//! - `rack-fabric connect`: connects to the leg on standard input
//! - `rack-fabric disconnect NQN`
//! - `rack-fabric connections`: what is connected
//! - `rack-fabric secret`: a new key

use std::io;

use anyhow::{Context, bail};
use strand_fabric::{Export, Initiator, Listen, Remote, Secret, Step, Target, plan};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let out = io::stdout();
    match words.as_slice() {
        ["export", listen] => {
            let target = open(listen)?;
            let wanted: Vec<Export> = serde_json::from_reader(io::stdin())?;
            for step in plan(&target.exports()?, &wanted) {
                match step {
                    Step::Fence(nqn) => target.fence(nqn)?,
                    Step::Export(export) => target.export(&export)?,
                }
            }
        }
        ["exports", listen] => serde_json::to_writer(out, &open(listen)?.exports()?)?,
        ["connect"] => {
            let remote: Remote = serde_json::from_reader(io::stdin())?;
            Initiator::open()?.connect(&remote)?;
        }
        ["disconnect", nqn] => Initiator::open()?.disconnect(nqn.parse()?)?,
        ["connections"] => serde_json::to_writer(out, &Initiator::open()?.connections()?)?,
        ["secret"] => serde_json::to_writer(out, &Secret::new().context("no random bytes")?)?,
        _ => bail!(
            "rack-fabric export LISTEN | exports LISTEN | connect | disconnect NQN | connections | secret"
        ),
    }
    Ok(())
}

fn open(listen: &str) -> anyhow::Result<Target> {
    let listen: Listen = serde_json::from_str(listen).context("where the target listens")?;
    Ok(Target::open(listen)?)
}
