//! Native GET one at a time against the drive.

use super::{Bed, micros, raw, words};
use crate::{
    context::{
        Plan, fio,
        load::{self, Gets},
        medium::Kind,
        pairs::{Goal, Pairs, interleave},
        serving::connect,
    },
    report::Row,
};
use std::time::Duration;

const LEN: usize = 128 << 10;

pub async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (kind, spin, most) in [(Kind::Disk, 0, 70.0), (Kind::Memory, 50, 30.0)] {
        let bed = Bed::filled(plan, kind, &[LEN], 0.75).await?;
        let (blocks, server) = (bed.blocks[0], bed.serving.process());
        // The pod's arenas are those of one session: the next one waits for them.
        drop(bed.client);
        let client = connect(&bed.serving.socket(1), 0.75, Duration::from_micros(spin)).await?;
        let rounds = interleave(
            plan.rounds,
            async || {
                let raw = fio::run(raw(&bed.device, LEN, 1, plan.slot)).await?;
                Ok((raw.p50, raw.p99))
            },
            async || {
                let ours = load::get(&client, Gets::of(blocks, 1, plan.slot), server).await?;
                Ok((ours.p50, ours.p99))
            },
        )
        .await?;
        let what = match spin {
            0 => format!("native GET, {}, 128 KiB, depth 1", kind.words()),
            spin => format!(
                "native GET, {}, 128 KiB, depth 1, spin <= {spin} us",
                kind.words()
            ),
        };
        let p50 = Pairs::of(&rounds, |(p50, _)| *p50);
        let goal = Goal::AtMost(most);
        let more = p50.difference();
        rows.push(Row::compared(
            format!("{what}, p50 - raw"),
            format!(
                "{more:+.0} us ({} / {})",
                micros(p50.ours()),
                micros(p50.baseline())
            ),
            &words(goal, " us", 0),
            p50.verdict(goal, more),
            p50,
        ));
        let p99 = Pairs::of(&rounds, |(_, p99)| *p99);
        if kind == Kind::Disk {
            rows.push(super::ratio(
                format!("{what}, p99 / raw"),
                p99,
                Goal::AtMost(1.3),
                micros,
            ));
        } else {
            let figure = format!(
                "{:.2} ({} / {})",
                p99.ratio(),
                micros(p99.ours()),
                micros(p99.baseline())
            );
            rows.push(Row::plain(format!("{what}, p99 / raw"), figure));
        }
        drop(client);
        bed.serving.end().await?;
    }
    Ok(rows)
}
