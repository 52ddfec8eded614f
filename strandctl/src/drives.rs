//! `strandctl drives`: every drive, where it stands, and why.

use crate::{
    cluster::{self, Evacuations, Target},
    standing::{Standing, Word, side, standing, used},
    text::{Style, Tone, count, fitted},
};
use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use strand_api::{
    Drive, DrivePhase, DriveStatus, DriveVerdict, PartitionRole, Transport, condition::Condition,
    names,
};

/// Lists drives.
#[derive(Args, Debug)]
pub struct DrivesArgs {
    #[command(flatten)]
    target: Target,
    /// Tell of each drive, in full sentences, why it is in or out and what to do about it
    #[arg(long)]
    why: bool,
    /// Another form of the list
    #[arg(short, long, value_enum, conflicts_with = "why")]
    output: Option<Output>,
}

/// Form of a list.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Output {
    /// The objects, as a Kubernetes List
    Json,
    /// The same in YAML
    Yaml,
    /// The table with more columns, not cut where the terminal ends
    Wide,
}

/// Runs `strandctl drives`.
pub async fn run(args: DrivesArgs) -> Result<()> {
    let client = args.target.client().await?;
    let drives = cluster::drives(&client).await?;
    let emptied = cluster::evacuations(&client).await?;
    let style = Style::of_stdout();
    let text = match (args.why, args.output) {
        (true, _) => why(style, &drives, &emptied),
        (false, None) => listing(style, &drives, &emptied, false),
        (false, Some(Output::Wide)) => listing(style.uncut(), &drives, &emptied, true),
        (false, Some(Output::Json)) => format!("{:#}\n", objects(&drives)?),
        (false, Some(Output::Yaml)) => serde_yaml::to_string(&objects(&drives)?)?,
    };
    print!("{text}");
    Ok(())
}

/// The table.
pub fn listing(style: Style, drives: &[Drive], emptied: &Evacuations, wide: bool) -> String {
    if drives.is_empty() {
        return NONE.into();
    }
    let mut head = vec![
        "NODE", "SERIAL", "SIZE", "VERDICT", "PHASE", "POOL", "CONTEXT", "STORAGE", "WHY",
    ];
    if wide {
        head.extend([
            "CONTEXT USED",
            "STORAGE USED",
            "WEAR",
            "MODEL",
            "FIRMWARE",
            "NUMA",
            "PCI",
            "DEVICE",
            "OBJECT",
        ]);
    }
    let rows: Vec<_> = drives
        .iter()
        .map(|drive| row(drive, emptied, wide))
        .collect();
    let mut text = fitted(style, &head, &rows);
    let out = drives.iter().filter(|d| standing(d).word == Word::Out);
    let out = out.count();
    if out > 0 {
        text.push_str(&format!(
            "\n{} out; `strandctl drives --why` tells why and what to do.\n",
            if out == 1 {
                "1 drive is".into()
            } else {
                format!("{out} drives are")
            }
        ));
    }
    text
}

const NONE: &str = "No drive is known. Node agents report the drives of their nodes; is one running on each node?\n";

fn row(drive: &Drive, emptied: &Evacuations, wide: bool) -> Vec<String> {
    let unjudged = DriveStatus::default();
    let status = drive.status.as_ref().unwrap_or(&unjudged);
    let size = |bytes: u64| match bytes {
        0 => String::new(),
        bytes => strand_api::ByteQuantity(bytes).rounded(),
    };
    let named = |value: Option<String>| value.unwrap_or_default();
    let mut row = vec![
        drive.spec.node_name.clone(),
        cluster::serial(drive).to_owned(),
        size(status.size.0),
        status
            .verdict
            .map_or("watched".into(), |v| format!("{v:?}")),
        named(status.phase.map(|phase| format!("{phase:?}"))),
        named(drive.spec.pool.clone()),
        size(side(status, PartitionRole::ContextMemory)),
        size(side(status, PartitionRole::Storage)),
        short_why(drive, status, emptied),
    ];
    if wide {
        let used = |role| match side(status, role) {
            0 => String::new(),
            _ => strand_api::ByteQuantity(used(status, role)).rounded(),
        };
        let identity = status.identity.clone().unwrap_or_default();
        let wear = status
            .health
            .as_ref()
            .map(|h| format!("{}%", h.percentage_used));
        row.extend([
            used(PartitionRole::ContextMemory),
            used(PartitionRole::Storage),
            named(wear),
            identity.model,
            named(identity.firmware),
            named(identity.numa_node.map(|n| n.to_string())),
            named(identity.pci_address),
            identity.device_path,
            drive.metadata.name.clone().unwrap_or_default(),
        ]);
    }
    row
}

/// The reasons' codes, where they say more than the other columns do.
fn short_why(drive: &Drive, status: &DriveStatus, emptied: &Evacuations) -> String {
    let mut codes: Vec<String> = Vec::new();
    if !matches!(status.verdict, Some(DriveVerdict::Pooled)) {
        codes.extend(status.reasons.iter().map(|reason| reason.code.clone()));
    }
    codes.extend(complaints(status).map(|condition| condition.reason.clone()));
    if drive.spec.cordon {
        codes.push("Cordoned".into());
    }
    let name = drive.metadata.name.as_deref().unwrap_or_default();
    if let Some(evacuation) = emptied.get(name) {
        let percent = evacuation.progress_percent.unwrap_or(0);
        codes.push(format!("Evacuating {percent} %"));
    }
    codes.join(", ")
}

/// Conditions that say that something is not as asked for.
fn complaints(status: &DriveStatus) -> impl Iterator<Item = &Condition> {
    status.conditions.iter().filter(|c| c.status == "False")
}

/// The long form: each drive with every reason and what to do.
pub fn why(style: Style, drives: &[Drive], emptied: &Evacuations) -> String {
    if drives.is_empty() {
        return NONE.into();
    }
    let mut text = String::new();
    let mut words = Vec::new();
    for drive in drives {
        let standing = standing(drive);
        words.push(standing.word);
        text.push_str(&one(style, drive, &standing));
        let name = drive.metadata.name.as_deref().unwrap_or_default();
        if let Some(evacuation) = emptied.get(name) {
            text.push_str(&format!("       - Evacuating: {}.\n", evacuation.message));
        }
        text.push('\n');
    }
    let number = |word| words.iter().filter(|w| **w == word).count();
    text.push_str(&format!(
        "{}: {} in, {} free, {} out, {} on the way.\n",
        count(drives.len(), "drive"),
        number(Word::In),
        number(Word::Free),
        number(Word::Out),
        number(Word::Waits)
    ));
    text
}

fn one(style: Style, drive: &Drive, standing: &Standing) -> String {
    const INDENT: &str = "       ";
    let word = style.paint(
        standing.word.tone(),
        &format!("{:<5}", standing.word.text()),
    );
    let name = drive.metadata.name.as_deref().unwrap_or_default();
    let title = style.paint(
        Tone::Strong,
        &format!("{}: {}", drive.spec.node_name, cluster::serial(drive)),
    );
    let mut text = format!("{word}  {title}{}\n", described(drive));
    text.push_str(&format!("{INDENT}{}.\n", capital(&standing.sentence)));
    let Some(status) = &drive.status else {
        return text;
    };
    if !matches!(status.verdict, Some(DriveVerdict::Pooled)) {
        for reason in &status.reasons {
            text.push_str(&format!("{INDENT}- {}: {}.\n", reason.code, reason.message));
        }
    }
    let adoption_told = standing.word == Word::Free;
    for complaint in complaints(status).filter(|c| !(adoption_told && c.type_ == names::ADOPTED)) {
        text.push_str(&format!(
            "{INDENT}- {}: {}.\n",
            complaint.reason, complaint.message
        ));
    }
    if drive.spec.cordon {
        text.push_str(&format!(
            "{INDENT}- Cordoned: it takes nothing new; to lift that: kubectl patch drive {name} \
             --type merge -p '{{\"spec\":{{\"cordon\":false}}}}'.\n"
        ));
    }
    if wipeable(status) {
        let serial = cluster::serial(drive);
        let operation = json!({
            "apiVersion": "strand.dev/v1alpha1",
            "kind": "DriveOperation",
            "metadata": {"generateName": format!("wipe-{name}-")},
            "spec": {"type": "Wipe", "drive": name, "serial": serial},
        });
        text.push_str(&format!(
            "{INDENT}To wipe it, and lose everything on it:\n{INDENT}  echo '{operation}' | kubectl create -f -\n"
        ));
    }
    text
}

/// Whether a wipe would help: something lies on the drive, and nothing else is against it.
fn wipeable(status: &DriveStatus) -> bool {
    status.verdict == Some(DriveVerdict::Foreign)
        && status
            .reasons
            .iter()
            .any(|r| r.message.contains("DriveOperation"))
        && !matches!(status.phase, Some(DrivePhase::Missing))
}

/// `, a 2Gi stand-in at /path`.
fn described(drive: &Drive) -> String {
    let Some(status) = &drive.status else {
        return String::new();
    };
    let Some(identity) = &status.identity else {
        return String::new();
    };
    let kind = match identity.transport {
        Transport::Pcie => "NVMe drive",
        Transport::Fabric => "drive on a fabric",
        Transport::StandIn => "stand-in for a drive",
    };
    let model = match identity.transport {
        Transport::StandIn => String::new(),
        _ => format!(" {}", identity.model),
    };
    let wear = match &status.health {
        Some(health) => format!(", {} % worn", health.percentage_used),
        None => String::new(),
    };
    format!(
        ", a {}{model} {kind} at {}{wear}",
        status.size.rounded(),
        identity.device_path
    )
}

fn capital(sentence: &str) -> String {
    let mut chars = sentence.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

/// The drives as a Kubernetes List, without the bookkeeping of field managers.
pub fn objects(drives: &[Drive]) -> Result<Value> {
    let mut items = Vec::new();
    for drive in drives {
        let mut drive = drive.clone();
        drive.metadata.managed_fields = None;
        items.push(serde_json::to_value(drive)?);
    }
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}))
}
