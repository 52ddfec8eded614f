//! `strandctl bench replay`: a trace through real doors.

use super::{
    content::Content,
    feed::{Feed, Speed, Survey},
    progress,
    report::{Drive, Report, Run},
    tally::{Blocks, Tally},
};
use crate::{
    kv::{
        Output,
        session::{Session, Taken},
        stat::Namespace,
        target::{Door, Target},
    },
    text::Style,
};
use anyhow::{Context, Result, bail};
use clap::Args;
use k8s_openapi::jiff::Timestamp;
use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use strand_api::ByteQuantity;
use strand_traces::{Request, Served};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync,
    task::JoinSet,
};

/// What is replayed, through what, and what it is compared with.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit code: 0 all bytes read were right, 1 some were not, 2 the replay did not end well."
)]
pub struct ReplayArgs {
    /// The trace: one JSON object a line with timestamp (ms), input_length, output_length and hash_ids (512-token blocks)
    file: PathBuf,
    /// Bytes of a block, such as 2Mi
    #[arg(long, value_name = "SIZE")]
    block_bytes: ByteQuantity,
    /// Bytes of the cache to compare with, such as 100Gi: what the pool's drives hold for context memory
    #[arg(long, value_name = "SIZE")]
    capacity: ByteQuantity,
    #[command(flatten)]
    target: Target,
    /// trace: requests come when they came; x10: ten times as fast; max: as fast as they are served
    #[arg(long, value_name = "SPEED", default_value = "max")]
    speed: Speed,
    /// Requests served at once, each with one block in flight; 1 keeps the trace's order exactly. Of a rack without --pod they
    /// are spread over all pods
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    clients: u32,
    /// What keys begin with; blocks of an earlier replay with the same prefix are found again [default: a new one]
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Prompt tokens that the inference server computes in a second
    #[arg(long, value_name = "RATE", default_value_t = 10_000.0)]
    prefill_rate: f64,
    /// Bytes of the drives that take the writes [default: as --capacity]
    #[arg(long, value_name = "SIZE")]
    drive_bytes: Option<ByteQuantity>,
    /// Drive writes per day that their maker promises
    #[arg(long, value_name = "N", default_value_t = 1.0, conflicts_with = "tbw")]
    dwpd: f64,
    /// For so many years
    #[arg(long, value_name = "N", default_value_t = 5.0, conflicts_with = "tbw")]
    years: f64,
    /// Bytes that may be written to them in all, such as 7P
    #[arg(long, value_name = "SIZE")]
    tbw: Option<ByteQuantity>,
    /// Another form of the report
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

/// What all clients share.
struct Shared {
    feed: sync::Mutex<Feed>,
    tally: Mutex<Tally>,
    content: Content,
    prefix: String,
}

/// The largest block: what fits one value.
const LARGEST: u64 = 512 << 20;

/// Runs `strandctl bench replay`.
pub async fn run(args: ReplayArgs) -> Result<ExitCode> {
    let block_bytes = args.block_bytes.0;
    if !(1..=LARGEST).contains(&block_bytes) {
        bail!("--block-bytes is {block_bytes}; a block has 1 to {LARGEST} bytes");
    }
    if !(args.prefill_rate.is_finite() && args.prefill_rate > 0.0) {
        bail!(
            "--prefill-rate is {}; it must be above 0",
            args.prefill_rate
        );
    }
    let drive = Drive::new(
        args.drive_bytes.unwrap_or(args.capacity).0,
        args.dwpd,
        args.years,
        args.tbw,
    )?;
    let survey = Survey::of(&args.file)?;
    let named = args.target.doors()?;
    let doors: Vec<Door> = named.into_iter().map(|(_, door)| door).collect();
    let clients = (args.clients as usize).max(doors.len());
    let sessions = Session::open_many(&doors, clients).await?;
    let dropped_before = dropped(&doors).await;
    let shared = Arc::new(Shared {
        feed: sync::Mutex::new(Feed::new(
            &survey,
            args.speed,
            usize::try_from(args.capacity.0 / block_bytes)?,
        )?),
        tally: Mutex::default(),
        content: Content::new(usize::try_from(block_bytes)?),
        prefix: args.prefix.clone().unwrap_or_else(fresh_prefix),
    });
    if shared.prefix.len() > 1000 {
        bail!(
            "--prefix has {} bytes; 1000 is the most that leaves room for ids",
            shared.prefix.len()
        );
    }

    // From here on, Ctrl-C ends the replay and not the process.
    let mut interrupts = signal(SignalKind::interrupt()).context("Ctrl-C cannot be seen")?;
    let started = Instant::now();
    let interrupted = {
        let serving = serve_all(sessions, &shared);
        let telling = progress::tell(&shared.tally, survey.endless.requests, block_bytes);
        tokio::select! {
            served = serving => served.map(|()| false),
            () = telling => Ok(false),
            _ = interrupts.recv() => Ok(true),
        }
    };
    progress::end();
    let interrupted = interrupted?;
    let seconds = started.elapsed().as_secs_f64();

    let mut tally = lock(&shared.tally).clone();
    if let (Some(before), Some(after)) = (dropped_before, dropped(&doors).await) {
        tally.blocks.dropped += after.saturating_sub(before);
    }
    let wrong = tally.blocks.wrong > 0;
    let feed = shared.feed.lock().await;
    let report = Report::of(Run {
        through: doors.iter().map(Door::to_string).collect(),
        clients: clients as u64,
        speed: args.speed,
        seconds,
        interrupted,
        block_bytes,
        capacity: args.capacity.0,
        prefill_rate: args.prefill_rate,
        drive,
        today: Timestamp::now(),
        survey: &survey,
        reference: feed.reference,
        latest: feed.latest,
        tally,
    });
    let text = match args.output {
        None => report.text(Style::of_stdout()),
        Some(Output::Json) => serde_json::to_string_pretty(&report)? + "\n",
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::from(u8::from(wrong)))
}

async fn serve_all(sessions: Vec<Session>, shared: &Arc<Shared>) -> Result<()> {
    let mut clients = JoinSet::new();
    for session in sessions {
        clients.spawn(client(session, Arc::clone(shared)));
    }
    while let Some(ended) = clients.join_next().await {
        ended.context("a client of the replay broke off")??;
    }
    Ok(())
}

async fn client(mut session: Session, shared: Arc<Shared>) -> Result<()> {
    loop {
        let request = shared.feed.lock().await.next().await?;
        let Some(request) = request else {
            return Ok(());
        };
        let mut blocks = Blocks::default();
        let served = serve(&mut session, &request, &shared, &mut blocks).await?;
        let mut tally = lock(&shared.tally);
        tally.totals.add(&request, served);
        tally.blocks.merge(blocks);
    }
}

/// Serves one request, block after block, as an inference server's connector does.
async fn serve(
    session: &mut Session,
    request: &Request,
    shared: &Shared,
    blocks: &mut Blocks,
) -> Result<Served> {
    let ids = request.hash_ids.iter();
    let keys: Vec<Vec<u8>> = ids
        .map(|id| format!("{}:{id}", shared.prefix).into_bytes())
        .collect();
    let content = &shared.content;

    let begun = Instant::now();
    let run = session.leading_run(&keys).await?;
    blocks.lookups.add(begun.elapsed());

    let mut hit = 0;
    for key in &keys[..run] {
        let begun = Instant::now();
        let mut took = Duration::ZERO;
        let wrong = session.get(key, |value| {
            took = begun.elapsed();
            content.wrong(key, value)
        });
        match wrong.await? {
            Some(0) => blocks.right += 1,
            Some(wrong) => {
                blocks.wrong += 1;
                blocks.wrong_bytes += wrong;
            }
            None => {
                blocks.lost += 1;
                break;
            }
        }
        blocks.gets.add(took);
        hit += 1;
    }
    for key in &keys[hit..] {
        let mut begun = Instant::now();
        let put = session.put(key, None, content.length(), |room| {
            content.fill(key, room);
            begun = Instant::now();
        });
        if put.await? == Taken::Dropped {
            blocks.dropped += 1;
        }
        blocks.sets.add(begun.elapsed());
    }
    Ok(Served {
        hit,
        written: keys.len() - hit,
    })
}

/// Writes that the endpoints have dropped since they began; a native door tells of each itself.
async fn dropped(doors: &[Door]) -> Option<u64> {
    let mut sum = 0;
    for door in doors {
        if let Door::Resp { .. } = door {
            let mut session = Session::open(door).await.ok()?;
            sum += Namespace::of(&mut session).await.ok()?.dropped?;
        }
    }
    Some(sum)
}

fn fresh_prefix() -> String {
    format!(
        "replay-{}-{}",
        Timestamp::now().as_second(),
        std::process::id()
    )
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}
