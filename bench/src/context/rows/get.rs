//! Native GET at depth 32 against the drive, and the processor time of agent and client.

use serde::Serialize;
use std::time::Instant;

use super::{Bed, MIB, gigabytes, ratio, raw, size, words};
use crate::{
    context::{
        Plan, fio,
        load::{self, Gets},
        medium::Kind,
        pairs::{Goal, Pairs, interleave, median},
    },
    report::Row,
};

const DEPTH: usize = 32;

#[derive(Clone, Copy, Serialize)]
struct Figures {
    rate: f64,
    cpu_a_gb: f64,
}

pub async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (kind, goals) in [
        (Kind::Disk, [(MIB, 0.90), (128 << 10, 0.85)]),
        (Kind::Memory, [(MIB, 0.85), (128 << 10, 0.95)]),
    ] {
        for (len, goal) in goals {
            // Filled with blocks of this length alone, so that both read as large a part of the device.
            let bed = Bed::filled(plan, kind, &[len], 0.75).await?;
            let server = bed.serving.process();
            let rounds = interleave(
                plan.rounds,
                async || {
                    let raw = fio::run(raw(&bed.device, len, DEPTH, plan.slot)).await?;
                    Ok(Figures {
                        rate: raw.rate,
                        cpu_a_gb: raw.cpu_a_gb,
                    })
                },
                async || {
                    let gets = Gets::of(bed.blocks[0], DEPTH, plan.slot);
                    let ours = load::get(&bed.client, gets, server).await?;
                    Ok(Figures {
                        rate: ours.rate,
                        cpu_a_gb: ours.cpu_a_gb,
                    })
                },
            )
            .await?;
            let what = format!(
                "native GET, {}, {}, depth {DEPTH} / raw",
                kind.words(),
                size(len)
            );
            rows.push(ratio(
                what,
                Pairs::of(&rounds, |f| f.rate),
                Goal::AtLeast(goal),
                gigabytes,
            ));
            if len == MIB {
                rows.extend(processor(kind, Pairs::of(&rounds, |f| f.cpu_a_gb)));
            }
            drop(bed.client);
            bed.serving.end().await?;
        }
    }
    Ok(rows)
}

/// Its two rows: in all, and against fio without what verifying costs.
fn processor(kind: Kind, pairs: Pairs) -> [Row; 2] {
    let (ours, raw, verifying) = (pairs.ours(), pairs.baseline(), verification());
    let cpu = |time: f64| format!("{time:.3} s/GB");
    let (whole, rest) = (Goal::AtMost(0.12), Goal::AtMost(1.5));
    let without = (ours - verifying) / raw;
    [
        Row::compared(
            format!("CPU of agent + client, native GET, {}, 1 MiB", kind.words()),
            cpu(ours),
            &words(whole, " s/GB", 2),
            whole.verdict(ours),
            pairs.clone(),
        ),
        Row::compared(
            format!(
                "… without verification ({}) / fio ({})",
                cpu(verifying),
                cpu(raw)
            ),
            format!("{without:.2}"),
            &words(rest, "", 1),
            rest.verdict(without),
            pairs,
        ),
    ]
}

/// Seconds for 1e9 bytes of the store's checksum over memory as large as a pod's arena.
fn verification() -> f64 {
    let memory = vec![1u8; 64 << 20];
    median((0..9).map(|_| {
        let begun = Instant::now();
        for chunk in memory.chunks(MIB) {
            std::hint::black_box(twox_hash::XxHash3_64::oneshot_with_seed(7, chunk));
        }
        begun.elapsed().as_secs_f64() / (memory.len() as f64 / 1e9)
    }))
}
