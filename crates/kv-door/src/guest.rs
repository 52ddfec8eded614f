//! Of which pod the process is that has connected to a door.
//!
//! A socket in a directory admits whoever gets to the directory, and a hostPath volume leads there too. The kernel says which process
//! has connected (`SO_PEERCRED`, unix(7)), and its control group whose it is: the kubelet makes one for each pod, named after its uid
//! (cgroups(7), and the kubelet's `pkg/kubelet/cm`).

use std::fs;

use strand_kv_client::frame::Code;
use tokio::net::UnixStream;

use crate::Refused;

/// The uid of a pod, as Kubernetes gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodUid(String);

impl PodUid {
    /// A pod's `metadata.uid`.
    pub fn new(uid: impl Into<String>) -> Self {
        Self(uid.into())
    }
}

/// Admits processes of this pod, those of the node itself, and those beside the agent.
pub(crate) fn admit(pod: &PodUid, socket: &UnixStream) -> Result<(), Refused> {
    // 0 stands for a process that this one cannot see.
    let peer = socket.peer_cred().ok().and_then(|peer| peer.pid());
    let groups = peer
        .filter(|pid| *pid > 0)
        .and_then(|pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).ok());
    let Some(groups) = groups else {
        return Err(refused(
            "whose process has connected cannot be told: it has ended, or the agent does not see the node's processes (hostPID)",
        ));
    };
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    match pod_of(&groups) {
        Some(other) if other != *pod && Some(&other) != pod_of(&own).as_ref() => Err(refused(
            "this door is another pod's; use the one that the own inline volume has",
        )),
        _ => Ok(()),
    }
}

fn refused(words: &str) -> Refused {
    Refused::new(Code::Stranger, words)
}

/// The pod that a process's control groups name: the innermost, where a node is itself a pod of another cluster.
fn pod_of(groups: &str) -> Option<PodUid> {
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths
        .flat_map(|path| path.split('/'))
        .filter_map(uid)
        .next_back()
}

/// The uid in a name of a pod's group: `pod<uid>`, or `kubepods-…-pod<uid>.slice`, which has `_` for `-`, with systemd.
fn uid(name: &str) -> Option<PodUid> {
    let (before, uid) = match name.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("pod")?,
        None => ("", name.strip_prefix("pod")?),
    };
    let uid = uid.replace('_', "-");
    let fits = uid.len() >= 32 && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    (fits && (before.is_empty() || before.ends_with('-'))).then_some(PodUid(uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0a5d1de6-2b0c-4c2d-9d2e-5a1d3f0b7c11";
    const OTHER: &str = "1b5d1de6-2b0c-4c2d-9d2e-5a1d3f0b7c11";

    #[test]
    fn a_pod_is_read_from_every_form_of_its_control_group() {
        let slice = UID.replace('-', "_");
        for groups in [
            format!("0::/kubepods/burstable/pod{UID}/5e1f\n"),
            format!("0::/../../besteffort/pod{UID}/5e1f\n"),
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice/cri-containerd-5e1f.scope\n"
            ),
            format!("0::/kubepods.slice/kubepods-pod{slice}.slice/crio-5e1f.scope\n"),
            format!("9:name=systemd:/kubepods/pod{UID}/5e1f\n8:pids:/kubepods/pod{UID}/5e1f\n"),
            format!("0::/kubepods/pod{OTHER}/5e1f/kubelet/kubepods/besteffort/pod{UID}/6a\n"),
        ] {
            assert_eq!(pod_of(&groups), Some(PodUid::new(UID)), "{groups}");
        }
        for groups in [
            "0::/system.slice/ssh.service\n",
            "0::/\n",
            "",
            "0::/podman/pod-of-mine/x\n",
            "0::/user.slice/tripod.slice\n",
        ] {
            assert_eq!(pod_of(groups), None, "{groups}");
        }
    }

    #[tokio::test]
    async fn processes_of_the_node_are_admitted() {
        let (here, _there) = UnixStream::pair().unwrap();
        assert_eq!(admit(&PodUid::new(UID), &here), Ok(()));
    }
}
