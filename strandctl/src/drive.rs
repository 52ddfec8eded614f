//! `strandctl drive`: what is done to one drive.

use crate::cluster::{Target, drives, in_words, serial};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use std::time::Duration;
use strand_api::{
    ByteQuantity, Drive, DriveOperation, DriveOperationSpec, OperationPhase, OperationType,
};

/// Between two looks at how far an operation is.
const LOOK: Duration = Duration::from_secs(1);

/// One drive.
#[derive(Args, Debug)]
pub struct DriveArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Cordon a drive and move its volumes and snapshots to other drives, of its node or else of other nodes; volumes that are attached follow
    /// when they are detached. It goes on without this command, and after any restart
    Evacuate(EvacuateArgs),
}

/// Empties a drive.
#[derive(Args, Debug)]
struct EvacuateArgs {
    /// The drive: name of its object, or its serial number
    drive: String,
    /// Bytes a second that are copied at most, such as 200Mi
    #[arg(long, default_value = "200Mi")]
    rate: ByteQuantity,
    /// Stay until no leg is left on it, and tell how far it is
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    target: Target,
}

/// Runs `strandctl drive`.
pub async fn run(args: DriveArgs) -> Result<()> {
    match args.command {
        Command::Evacuate(args) => evacuate(args).await,
    }
}

async fn evacuate(args: EvacuateArgs) -> Result<()> {
    let client = args.target.client().await?;
    let drive = find(&client, &args.drive).await?;
    let name = drive.name_any();
    let operation = operation(&name);
    cordon(&client, &drive).await?;
    let operations: Api<DriveOperation> = Api::all(client.clone());
    match empty(&client, &drive, args.rate).await? {
        true => println!(
            "drive {name}: cordoned, and being emptied with {} a second at most",
            args.rate.rounded()
        ),
        false => {
            println!("drive {name}: is being emptied already, at the rate that was given then");
        }
    }
    if !args.wait {
        println!(
            "`strandctl drives` and `kubectl get driveoperation {operation}` tell how far it is;"
        );
        println!("`kubectl delete driveoperation {operation}` stops it");
        return Ok(());
    }
    follow(&operations, &operation).await
}

/// The operation that empties a drive.
fn operation(drive: &str) -> String {
    format!("evacuate-{drive}")
}

/// Begins to empty a drive that is cordoned; false where that goes on already.
pub async fn empty(client: &Client, drive: &Drive, rate: ByteQuantity) -> Result<bool> {
    let name = drive.name_any();
    let operation = operation(&name);
    let operations: Api<DriveOperation> = Api::all(client.clone());
    let earlier = operations.get_opt(&operation).await.map_err(in_words)?;
    if earlier.as_ref().is_some_and(|there| !ended(there)) {
        return Ok(false);
    }
    if let Some(earlier) = earlier {
        let params = DeleteParams {
            preconditions: Some(kube::api::Preconditions {
                uid: earlier.metadata.uid,
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let deleted = operations.delete(&operation, &params).await;
        deleted.map_err(in_words)?;
    }
    let object = DriveOperation {
        metadata: ObjectMeta {
            name: Some(operation),
            ..ObjectMeta::default()
        },
        spec: DriveOperationSpec {
            type_: OperationType::Evacuate,
            drive: name.clone(),
            serial: serial(drive).to_owned(),
            rate: Some(rate),
        },
        status: None,
    };
    let made = operations.create(&PostParams::default(), &object).await;
    made.map(|_| true)
        .map_err(in_words)
        .with_context(|| format!("drive {name} is cordoned, and is not being emptied"))
}

async fn find(client: &Client, named: &str) -> Result<Drive> {
    let mut found = drives(client).await?;
    found.retain(|drive| drive.name_any() == named || serial(drive) == named);
    let drive = match (found.pop(), found.pop()) {
        (Some(drive), None) => drive,
        (None, _) => {
            bail!("there is no drive {named}; `strandctl drives -o wide` has names and serials")
        }
        (Some(_), Some(_)) => {
            bail!(
                "several drives have the serial {named}: name the object that is meant, as `strandctl drives -o wide` has it"
            )
        }
    };
    let name = drive.name_any();
    if drive.spec.pool.is_none() {
        bail!("drive {name} is in no pool, and holds nothing of Strand's");
    }
    Ok(drive)
}

async fn cordon(client: &Client, drive: &Drive) -> Result<()> {
    if drive.spec.cordon {
        return Ok(());
    }
    let name = drive.name_any();
    let patch = Patch::Merge(json!({"spec": {"cordon": true}}));
    let drives: Api<Drive> = Api::all(client.clone());
    let patched = drives.patch(&name, &PatchParams::default(), &patch).await;
    patched
        .map(|_| ())
        .map_err(in_words)
        .with_context(|| format!("drive {name} was not cordoned"))
}

fn ended(operation: &DriveOperation) -> bool {
    let phase = operation.status.as_ref().and_then(|s| s.phase);
    matches!(
        phase,
        Some(OperationPhase::Succeeded | OperationPhase::Failed)
    )
}

async fn follow(operations: &Api<DriveOperation>, name: &str) -> Result<()> {
    let mut told = String::new();
    loop {
        let found = operations.get_opt(name).await.map_err(in_words)?;
        let Some(operation) = found else {
            bail!("the operation was deleted: what was not moved by then stays where it is");
        };
        let status = operation.status.unwrap_or_default();
        if status.message != told {
            println!("{}", status.message);
            told.clone_from(&status.message);
        }
        match status.phase {
            Some(OperationPhase::Succeeded) => return Ok(()),
            Some(OperationPhase::Failed) => bail!("{}", status.message),
            Some(OperationPhase::Running) | None => tokio::time::sleep(LOOK).await,
        }
    }
}
