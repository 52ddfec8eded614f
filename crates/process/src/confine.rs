//! What a privileged process gives up: no runtime applies a seccomp profile to a privileged container, so the process applies its
//! own.
//!
//! The profile refuses, but for `clone` into new namespaces and policies of memory, what the runtimes' default profile refuses a
//! container without capabilities
//! (<https://docs.docker.com/engine/security/seccomp/#significant-syscalls-blocked-by-the-default-profile>), and `chroot`; it
//! allows mounting, and io_uring to whom asks for it. It holds for every thread, and for the tools that the process runs.

use std::collections::BTreeMap;

use anyhow::Context;
use libc::{c_long, *};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter_all_threads};

/// Whether a process makes io_uring's rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rings {
    /// Its drives are read and written through them.
    Allowed,
    /// It has no use for them.
    Refused,
}

/// Refuses this process, for as long as it lives, the system calls that it has no use for: they fail with `EPERM`. A kernel that
/// takes no filter is told in the log, and the process goes on without one.
pub fn confine(rings: Rings) {
    let confined = profile(rings).and_then(|profile| {
        apply_filter_all_threads(&profile).context("the kernel does not take it")
    });
    match confined {
        Ok(()) => tracing::debug!(io_uring = ?rings, "the seccomp profile holds"),
        Err(error) => tracing::warn!(
            "no seccomp profile: {error:#}; the process goes on, with every system call that its container leaves it"
        ),
    }
}

fn profile(rings: Rings) -> anyhow::Result<BpfProgram> {
    let rings: &[c_long] = match rings {
        Rings::Allowed => &[],
        Rings::Refused => &[
            SYS_io_uring_setup,
            SYS_io_uring_enter,
            SYS_io_uring_register,
        ],
    };
    // Without conditions a rule holds for all arguments of its call.
    let rules: BTreeMap<_, _> = [
        KERNEL,
        MACHINE,
        PROCESSES,
        NAMESPACES,
        OF_THE_ARCHITECTURE,
        rings,
    ]
    .concat()
    .into_iter()
    .map(|call| (call, Vec::new()))
    .collect();
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(EPERM.cast_unsigned()),
        std::env::consts::ARCH.try_into()?,
    )?;
    Ok(filter.try_into()?)
}

/// What runs in the kernel, and ways in that have often been broken.
const KERNEL: &[c_long] = &[
    SYS_add_key,
    SYS_bpf,
    SYS_delete_module,
    SYS_finit_module,
    SYS_init_module,
    SYS_kexec_file_load,
    SYS_kexec_load,
    SYS_keyctl,
    SYS_lookup_dcookie,
    SYS_nfsservctl,
    SYS_perf_event_open,
    SYS_request_key,
    SYS_userfaultfd,
];

/// What is everybody's: clocks, names, swap, quotas, the log, the switch.
const MACHINE: &[c_long] = &[
    SYS_acct,
    SYS_adjtimex,
    SYS_clock_adjtime,
    SYS_clock_settime,
    SYS_quotactl,
    SYS_quotactl_fd,
    SYS_reboot,
    SYS_setdomainname,
    SYS_sethostname,
    SYS_settimeofday,
    SYS_swapoff,
    SYS_swapon,
    SYS_syslog,
    SYS_vhangup,
];

/// Other processes' memory and files.
const PROCESSES: &[c_long] = &[
    SYS_fanotify_init,
    SYS_kcmp,
    SYS_migrate_pages,
    SYS_move_pages,
    SYS_open_by_handle_at,
    SYS_personality,
    SYS_pidfd_getfd,
    SYS_process_madvise,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_ptrace,
];

/// Into other namespaces and roots, and out of one's own.
const NAMESPACES: &[c_long] = &[SYS_chroot, SYS_pivot_root, SYS_setns, SYS_unshare];

#[cfg(target_arch = "x86_64")]
const OF_THE_ARCHITECTURE: &[c_long] = &[
    SYS__sysctl,
    SYS_ioperm,
    SYS_iopl,
    SYS_modify_ldt,
    SYS_sysfs,
    SYS_uselib,
    SYS_ustat,
];
#[cfg(not(target_arch = "x86_64"))]
const OF_THE_ARCHITECTURE: &[c_long] = &[];
