//! A namespace at its fair share, with a hostile neighbour and alone.

use super::{Bed, micros, ratio};
use crate::{
    context::{
        Plan,
        child::Driven,
        load::{self, Gets},
        medium::Kind,
        pairs::{Goal, Pairs, interleave},
    },
    report::Row,
};
use std::time::Duration;

const LEN: usize = 128 << 10;
const DEPTH: usize = 4;
/// Of the whole: half is its share, and a queue that is always full has no bound.
const SHARE: f64 = 0.4;

pub async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let mut bed = Bed::filled(plan, Kind::Memory, &[LEN], 0.75).await?;
    let (server, client) = (bed.serving.process(), &bed.client);
    // Half of it: the neighbour shall not have to evict what is read here.
    let mut gets = Gets::of(bed.blocks[0], DEPTH, plan.slot);
    gets.may_miss = true;
    let whole = load::get(client, gets.clone(), server).await?.rate;
    gets.pace = Duration::from_secs_f64((LEN * DEPTH) as f64 / (whole * SHARE));
    let socket = bed.serving.door(2).await?;
    let arguments = ["hostile", &socket.to_string_lossy()];
    let mut hostile = Driven::start(&std::env::current_exe()?, arguments, "")?;
    let quiet = async || Ok(load::get(client, gets.clone(), server).await?);
    let mut beside = async || {
        let command = format!(
            "run {}",
            (plan.slot + Duration::from_millis(100)).as_millis()
        );
        hostile.ask(&command).await?;
        let figures = load::get(client, gets.clone(), server).await?;
        hostile.answer().await?;
        Ok(figures)
    };
    beside().await?;
    let rounds = interleave(plan.rounds, quiet, beside).await?;
    hostile.end().await?;
    let rates = Pairs::of(&rounds, |figures| figures.rate);
    let row = ratio(
        "p99 GET 128 KiB with a hostile neighbour / alone",
        Pairs::of(&rounds, |figures| figures.p99),
        Goal::AtMost(2.0),
        micros,
    );
    drop(bed.client);
    bed.serving.end().await?;
    Ok(vec![
        row,
        Row::plain(
            "… bytes a second with it / alone, at 0.4 of the drive",
            format!("{:.3}", rates.ratio()),
        ),
    ])
}
