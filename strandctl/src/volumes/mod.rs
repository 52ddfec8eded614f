//! `strandctl volumes`: what the pool holds, what nobody owns, and whether a volume can be had at all.

mod check;
mod import;
mod life;
mod list;

use crate::cluster::in_words;
use anyhow::Result;
use clap::{Args, Subcommand};
use kube::{Api, Client, ResourceExt, api::ListParams};
use strand_api::{PlacedLeg, PoolLeg, PoolSnapshot, PoolVolume};

/// Volumes of the pool; without a command they are listed.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct VolumesArgs {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: list::ListArgs,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List volumes with where they lie, and bytes that nobody owns
    List(list::ListArgs),
    /// Make volumes and snapshots of bytes that nobody owns: of a cluster that lost its objects
    Import(import::ImportArgs),
    /// Take a volume through its life by the CSI calls of a rack that `strandctl up` runs
    Check(check::CheckArgs),
}

/// Runs `strandctl volumes`.
pub async fn run(args: VolumesArgs) -> Result<()> {
    match args.command {
        None => list::run(args.list).await,
        Some(Command::List(args)) => list::run(args).await,
        Some(Command::Import(args)) => import::run(args).await,
        Some(Command::Check(args)) => check::run(args).await,
    }
}

/// The cluster's volumes and what they lie on.
struct Held {
    volumes: Vec<PoolVolume>,
    snapshots: Vec<PoolSnapshot>,
    legs: Vec<PoolLeg>,
}

impl Held {
    async fn read(client: &Client) -> Result<Held> {
        let params = ListParams::default();
        let volumes = Api::<PoolVolume>::all(client.clone());
        let snapshots = Api::<PoolSnapshot>::all(client.clone());
        let legs = Api::<PoolLeg>::all(client.clone());
        let (volumes, snapshots, legs) = tokio::try_join!(
            volumes.list(&params),
            snapshots.list(&params),
            legs.list(&params)
        )
        .map_err(in_words)?;
        Ok(Held {
            volumes: volumes.items,
            snapshots: snapshots.items,
            legs: legs.items,
        })
    }

    /// Whether there is a snapshot, or else a volume, of this name.
    fn has(&self, snapshot: bool, name: &str) -> bool {
        match snapshot {
            true => self.snapshots.iter().any(|s| s.name_any() == name),
            false => self.volumes.iter().any(|v| v.name_any() == name),
        }
    }

    /// The leg that an owner names.
    fn leg(&self, placed: &PlacedLeg) -> Option<&PoolLeg> {
        let of =
            |leg: &&PoolLeg| uuid(leg) == placed.uuid.as_deref() && leg.spec.drive == placed.drive;
        self.legs.iter().filter(|_| placed.uuid.is_some()).find(of)
    }

    /// Legs whose bytes are there, and stay, and that no volume or snapshot owns.
    fn orphans(&self) -> impl Iterator<Item = &PoolLeg> {
        let orphaned =
            |leg: &&PoolLeg| leg.spec.orphaned && !leg.spec.deletion_mark && uuid(leg).is_some();
        self.legs.iter().filter(orphaned)
    }
}

/// The UUID of a leg's bytes: what its spec asks for, or what its agent has made.
fn uuid(leg: &PoolLeg) -> Option<&str> {
    let told = leg.status.as_ref().and_then(|s| s.uuid.as_deref());
    leg.spec.uuid.as_deref().or(told)
}
