//! Puts arrays together in a guest, with the code that the agent has for it. What it shall do and what it sees are JSON.
//!
//! - `rack-arrays keep`: brings the array on standard input to what that says, and prints what was seen last
//! - `rack-arrays break-off N`: does the first N steps of that, and dies as if it had been killed
//! - `rack-arrays look`: what is there of the array on standard input
//! - `rack-arrays report`: what its consumer would tell of its legs
//! - `rack-arrays stop UUID`
//! - `rack-arrays all`: every array of ours

use std::io;

use anyhow::{Context, bail};
use strand_arrays::{Arrays, Host, Wanted, plan, report};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let out = io::stdout();
    let arrays = Arrays::open(Host::new("/run/strand"))?;
    let wanted = || -> anyhow::Result<Wanted> {
        serde_json::from_reader(io::stdin()).context("what the volume says")
    };
    match words.as_slice() {
        ["keep"] => serde_json::to_writer(out, &arrays.keep(&wanted()?)?)?,
        ["break-off", steps] => {
            let wanted = wanted()?;
            let mut left: usize = steps.parse()?;
            while left > 0 {
                let seen = arrays.look(&wanted);
                let steps = plan(&wanted, &seen)?;
                if steps.is_empty() {
                    break;
                }
                for step in steps.iter().take(left) {
                    arrays.apply(&wanted, &seen, step)?;
                }
                left = left.saturating_sub(steps.len());
            }
        }
        ["look"] => serde_json::to_writer(out, &arrays.look(&wanted()?))?,
        ["report"] => {
            let wanted = wanted()?;
            serde_json::to_writer(out, &report(&wanted, &arrays.look(&wanted)))?;
        }
        ["stop", array] => arrays.stop(array.parse()?, &[])?,
        ["all"] => serde_json::to_writer(out, &arrays.all())?,
        _ => bail!("rack-arrays keep | break-off STEPS | look | report | stop UUID | all"),
    }
    Ok(())
}
