//! `strandctl preflight`: whether this machine can be a node, before anything is installed. Nothing is written.

mod facts;
mod judge;
mod network;

use crate::{
    output::{Output, formed},
    text::{Style, Tone, table},
};
use anyhow::Result;
use clap::Args;
use facts::Facts;
use judge::{Check, Mark, judge};
use std::{net::IpAddr, path::PathBuf, process::ExitCode};
use strand_drives::Roots;

/// Looks at this machine as a node to be: kernel and its settings, modules, limits, network and drives.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit code: 0 it can be a node, 1 something is in the way.\n\nOn a node of a cluster:\n  \
                  echo '{\"securityContext\":{\"runAsUser\":0}}' >as-root.json\n  \
                  kubectl debug node/NAME -it --profile=sysadmin --custom=as-root.json --image=IMAGE -- \
                  strandctl preflight --root /host"
)]
pub struct PreflightArgs {
    /// Where the machine's root directory is seen, in a container
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Ports of the agent, its peers, the CSI driver, its probe and the export of volumes, as the chart's values have them
    #[arg(long, value_delimiter = ',', default_values_t = [9465, 9466, 9467, 9468, 4420])]
    ports: Vec<u16>,
    /// Address at which other nodes reach this one, as the kubelet tells it [default: that of the default route]
    #[arg(long)]
    address: Option<IpAddr>,
    /// Another form: json and yaml are for programs, wide is the table
    #[arg(short, long, value_enum, hide_possible_values = true)]
    output: Option<Output>,
}

/// Runs `strandctl preflight`.
pub async fn run(args: PreflightArgs) -> Result<ExitCode> {
    let under = |path: &str| args.root.join(path);
    // Processes and devices are those of the kernel's, in whichever container; the kubelet's files are the host's.
    let roots = Roots {
        kubelet: under("var/lib/kubelet"),
        ..Roots::default()
    };
    let facts = Facts::gather(&args.root, roots, &args.ports, args.address).await?;
    let checks = judge(&facts);
    let table = |_| text(Style::of_stdout(), &checks);
    print!("{}", formed(args.output, || Ok(&checks), table)?);
    let stopped = checks.iter().any(|check| check.mark == Mark::Missing);
    Ok(ExitCode::from(u8::from(stopped)))
}

fn text(style: Style, checks: &[Check]) -> String {
    let rows: Vec<_> = checks
        .iter()
        .map(|check| {
            vec![
                check.mark.word().into(),
                check.what.clone(),
                check.found.clone(),
            ]
        })
        .collect();
    let mut text = table(style, &["STATE", "WHAT", "FOUND"], &rows);
    let said = checks.iter().filter(|check| !check.then.is_empty());
    let mut first = true;
    for check in said {
        if std::mem::take(&mut first) {
            text.push('\n');
        }
        let tone = match check.mark {
            Mark::Missing => Tone::Bad,
            Mark::Less => Tone::Note,
            Mark::Good => Tone::Faint,
        };
        let what = style.paint(tone, &check.what);
        // A list begins on its own line.
        let blank = if check.then.starts_with('\n') {
            ""
        } else {
            " "
        };
        text.push_str(&format!("{what}:{blank}{}\n", check.then));
    }
    let verdict = match checks.iter().map(|check| check.mark).max() {
        Some(Mark::Missing) => style.paint(Tone::Bad, "Something is in the way: see above."),
        Some(Mark::Less) => style.paint(
            Tone::Note,
            "This machine can be a node, with the limits told above.",
        ),
        _ => style.paint(Tone::Good, "This machine can be a node."),
    };
    text.push_str(&format!("\n{verdict}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::compare;

    #[test]
    fn machines_in_words() {
        let said = [facts::tests::server(), facts::tests::laptop()]
            .map(|facts| text(Style::PLAIN, &judge(&facts)));
        compare("preflight.txt", &said.join("\n"));
    }
}
