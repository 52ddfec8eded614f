//! `strandctl bench trace`: a made trace.

use anyhow::{Context, Result, ensure};
use clap::Args;
use std::{
    fs::File,
    io::{self, BufWriter, ErrorKind, Write},
    path::PathBuf,
};
use strand_traces::{Cache, Generator, Infinite, Shape, Totals};

/// What the trace is like.
#[derive(Args, Debug)]
pub struct TraceArgs {
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Makes another trace of the same kind
    #[arg(long, value_name = "N", default_value_t = Shape::default().seed)]
    seed: u64,
    /// Requests in it
    #[arg(long, value_name = "N", default_value_t = Shape::default().requests)]
    requests: u64,
    /// Conversations that begin in a second, on average
    #[arg(long, value_name = "RATE", default_value_t = Shape::default().sessions_per_second)]
    sessions_per_second: f64,
    /// Different system prompts
    #[arg(long, value_name = "N", default_value_t = Shape::default().system_prompts)]
    system_prompts: usize,
    /// How much more popular the first system prompts are (Zipf's exponent; 0: all alike)
    #[arg(long, value_name = "EXPONENT", default_value_t = Shape::default().popularity)]
    popularity: f64,
    /// Median tokens that a conversation begins with
    #[arg(long, value_name = "TOKENS", default_value_t = Shape::default().opening_tokens)]
    opening_tokens: f64,
    /// Probability that a conversation has a second turn
    #[arg(long, value_name = "P", default_value_t = Shape::default().second_turn)]
    second_turn: f64,
    /// Probability that a conversation of at least two turns has another
    #[arg(long, value_name = "P", default_value_t = Shape::default().further_turn)]
    further_turn: f64,
    /// Median seconds from a turn to the next
    #[arg(long, value_name = "SECONDS", default_value_t = Shape::default().think_seconds)]
    think_seconds: f64,
}

impl TraceArgs {
    fn shape(&self) -> Result<Shape> {
        let positive = |flag: &str, value: f64| {
            ensure!(
                value > 0.0 && value.is_finite(),
                "--{flag} is {value}; it must be above 0"
            );
            Ok(value)
        };
        let probability = |flag: &str, value: f64| {
            ensure!(
                (0.0..=1.0).contains(&value),
                "--{flag} is {value}; a probability is 0 to 1"
            );
            Ok(value)
        };
        ensure!(
            (0.0..=10.0).contains(&self.popularity),
            "--popularity is {}; it must be 0 to 10",
            self.popularity
        );
        ensure!(
            (1..=1_000_000).contains(&self.system_prompts),
            "--system-prompts is {}; it must be 1 to 1000000",
            self.system_prompts
        );
        Ok(Shape {
            seed: self.seed,
            requests: self.requests,
            sessions_per_second: positive("sessions-per-second", self.sessions_per_second)?,
            system_prompts: self.system_prompts,
            popularity: self.popularity,
            opening_tokens: positive("opening-tokens", self.opening_tokens)?,
            second_turn: probability("second-turn", self.second_turn)?,
            further_turn: probability("further-turn", self.further_turn)?,
            think_seconds: positive("think-seconds", self.think_seconds)?,
            ..Shape::default()
        })
    }
}

/// Runs `strandctl bench trace`.
pub fn run(args: TraceArgs) -> Result<()> {
    let shape = args.shape()?;
    let mut out: Box<dyn Write> = match &args.output {
        None => Box::new(io::stdout().lock()),
        Some(file) => Box::new(
            File::create(file).with_context(|| format!("{} cannot be written", file.display()))?,
        ),
    };
    match write(shape, &mut BufWriter::new(&mut out)) {
        Ok(summary) => eprintln!("{summary}"),
        // As with `… | head`: whoever reads has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        Err(error) => return Err(error).context("the trace cannot be written"),
    }
    Ok(())
}

fn write(shape: Shape, out: &mut impl Write) -> io::Result<String> {
    let (mut endless, mut totals) = (Infinite::default(), Totals::default());
    for request in Generator::new(shape) {
        writeln!(out, "{}", request.to_line())?;
        totals.add(&request, endless.serve(&request.hash_ids));
    }
    out.flush()?;
    Ok(format!(
        "{} requests in {:.0} s, {} blocks asked, {} different; an endless cache hits {:.1} %",
        totals.requests,
        totals.span_seconds(),
        totals.blocks_asked,
        endless.blocks(),
        100.0 * totals.hit_rate()
    ))
}
