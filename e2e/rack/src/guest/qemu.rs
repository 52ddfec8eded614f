//! How QEMU is told of a machine.

use std::ffi::OsString;

use super::{Cable, Guest, MEMORY_MIB, SERVICE};
use crate::network;

impl Guest {
    /// The flags of QEMU.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let (dir, number) = (self.dir.display(), self.port + 1);
        let network = network::socket(&self.rack, self.port);
        let mut arguments = [
            format!("-name {}", self.name),
            "-accel tcg,thread=multi -M q35 -cpu max -smp 1".into(),
            format!("-m {MEMORY_MIB} -nodefaults -display none -no-reboot"),
            format!("-serial file:{dir}/console.log -serial file:{dir}/programs.log"),
            format!("-qmp unix:{dir}/qmp,server=on,wait=off"),
            format!("-chardev socket,id=control,path={dir}/control,server=on,wait=off"),
            "-device virtio-serial-pci -device virtserialport,chardev=control,name=control".into(),
            format!(
                "-netdev user,id={},hostfwd=tcp:{}-:{SERVICE}",
                Cable::Host.device(),
                self.service()
            ),
            format!(
                "-device virtio-net-pci,romfile=,netdev={},mac=52:54:00:00:00:{number:02x}",
                Cable::Host.device()
            ),
            format!(
                "-netdev stream,id={},server=off,addr.type=unix,addr.path={}",
                Cable::Rack.device(),
                network.display()
            ),
            format!(
                "-device virtio-net-pci,romfile=,netdev={},mac=52:54:00:00:01:{number:02x}",
                Cable::Rack.device()
            ),
            format!(
                "-kernel {} -initrd {}",
                self.image.kernel.display(),
                self.image.root.display()
            ),
        ]
        .iter()
        .flat_map(|line| line.split(' '))
        .map(OsString::from)
        .collect::<Vec<_>>();
        let mut add = |flag: &str, value: String| {
            arguments.extend([OsString::from(flag), OsString::from(value)]);
        };
        // On a busy host an emulated timer ticks too late for the kernel's check of it, which would panic.
        add(
            "-append",
            format!(
                "console=ttyS0 quiet mitigations=off nokaslr panic=-1 no_timer_check security=selinux selinux=1 rack.name={} rack.address={}",
                self.name,
                self.address()
            ),
        );
        for (slot, drive) in self.slots.iter().enumerate() {
            let name = slot_name(slot);
            let chassis = slot + 1;
            add(
                "-device",
                format!("pcie-root-port,id={name},bus=pcie.0,chassis={chassis},slot={chassis}"),
            );
            if let Some(drive) = drive {
                for node in drive.nodes() {
                    add("-blockdev", node.to_string());
                }
                add("-device", drive.device_options(&name).to_string());
            }
        }
        arguments
    }
}

/// Name of the bus on which a drive lies.
pub(super) fn slot_name(slot: usize) -> String {
    format!("slot{slot}")
}
