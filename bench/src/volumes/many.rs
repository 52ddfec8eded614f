//! Volumes of one node, all at once.

use futures::{StreamExt, TryStreamExt, stream};
use std::time::Instant;

use super::{
    Plan, Times, VOLUME,
    bed::{Bed, Drive},
    csi::Access,
    steps,
};
use crate::{context::medium::Kind, report::Row};

/// How many are taken away at once.
const ENDING: usize = 16;

pub async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let kind = Kind::Disk;
    let bed = Bed::start(Drive {
        kind,
        bytes: (plan.at_once as u64 + 10) * VOLUME * 5 / 4,
        allocated: false,
    })
    .await?;
    let begun = Instant::now();
    let publish = |number: usize| {
        let driver = &bed.driver;
        async move {
            let name = format!("many-{number}");
            driver.publish(&name, VOLUME, Access::Files).await
        }
    };
    let all = stream::iter(0..plan.at_once)
        .map(publish)
        .buffer_unordered(plan.at_once)
        .try_collect::<Vec<_>>()
        .await?;
    let took = begun.elapsed().as_secs_f64();
    let mut rows = vec![Row::goal(
        format!(
            "{} volumes of one node at once, {}, 10 GiB, XFS: all published",
            plan.at_once,
            kind.words()
        ),
        format!("{took:.1} s"),
        "<= 30 s",
        took <= 30.0,
    )];
    rows.push(
        Times::of(all.iter().map(|published| published.time())).plain("  each of them, p50 / p99"),
    );
    let begun = Instant::now();
    stream::iter(&all)
        .map(|published| bed.driver.end(published))
        .buffer_unordered(ENDING)
        .try_collect::<Vec<_>>()
        .await?;
    for published in &all {
        bed.until_gone(&published.id).await?;
    }
    let ended = begun.elapsed().as_secs_f64();
    bed.stop().await?;
    let ways: Vec<_> = all.into_iter().map(|published| published.way).collect();
    rows.extend(steps(&ways));
    rows.push(Row::plain("all taken away again", format!("{ended:.1} s")));
    Ok(rows)
}
