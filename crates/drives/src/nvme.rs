//! What an NVMe controller tells about itself and its namespace.

use std::fs::File;
use std::io;
use std::mem::offset_of;

use nvme_cli_sys::{nvme_id_ctrl, nvme_id_ns, nvme_smart_log};
use strand_placement::verdict::{Health, Sharing, Smart};

use crate::ioctl::{self, NVME_PAGE};
use crate::survey::Deallocated;

/// A page that an admin command returned.
pub(crate) type Page = Box<[u8; NVME_PAGE]>;

/// The admin commands that Strand sends: the kernel's ioctls, or a test's pages.
pub(crate) trait NvmeAdmin: Send + Sync + 'static {
    /// The namespace id of an open block device.
    fn namespace_id(&self, device: &File) -> io::Result<u32>;
    /// Identify Controller.
    fn identify_controller(&self, device: &File) -> io::Result<Page>;
    /// Identify Namespace.
    fn identify_namespace(&self, device: &File, namespace: u32) -> io::Result<Page>;
    /// The controller's SMART / Health Information log.
    fn smart_log(&self, device: &File) -> io::Result<Page>;
}

/// The kernel's NVMe driver.
pub(crate) struct KernelNvme;

impl NvmeAdmin for KernelNvme {
    fn namespace_id(&self, device: &File) -> io::Result<u32> {
        ioctl::nvme_namespace_id(device)
    }

    fn identify_controller(&self, device: &File) -> io::Result<Page> {
        ioctl::nvme_identify(device, 0, 1)
    }

    fn identify_namespace(&self, device: &File, namespace: u32) -> io::Result<Page> {
        ioctl::nvme_identify(device, namespace, 0)
    }

    fn smart_log(&self, device: &File) -> io::Result<Page> {
        ioctl::nvme_smart_log(device)
    }
}

/// Who a controller says it is, and who may share its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) model: String,
    pub(crate) serial: String,
    pub(crate) namespace: u32,
    pub(crate) sharing: Sharing,
    pub(crate) deallocated: Deallocated,
    pub(crate) write_protected: bool,
}

/// Asks the controller behind an open device who it is.
pub(crate) fn identify(admin: &dyn NvmeAdmin, device: &File) -> io::Result<Identity> {
    let namespace = admin.namespace_id(device)?;
    let controller = admin.identify_controller(device)?;
    let space = admin.identify_namespace(device, namespace)?;
    // CMIC: bit 0 several ports, bit 1 several controllers, bit 2 an SR-IOV function. NMIC bit 0: the namespace may be attached to
    // several controllers. Only both together let another controller write to it.
    let cmic = controller[offset_of!(nvme_id_ctrl, cmic)];
    let nmic = space[offset_of!(nvme_id_ns, nmic)];
    let sharing = match (nmic & 1, cmic & 0b111) {
        (0, _) | (_, 0) => Sharing::Private,
        _ => Sharing::Shared {
            why: format!(
                "the namespace is shareable (NMIC {nmic:#x}) and the drive has several ports or controllers (CMIC {cmic:#x})"
            ),
        },
    };
    Ok(Identity {
        model: text(&controller[offset_of!(nvme_id_ctrl, mn)..][..40]),
        serial: text(&controller[offset_of!(nvme_id_ctrl, sn)..][..20]),
        namespace,
        sharing,
        deallocated: match space[offset_of!(nvme_id_ns, dlfeat)] & 0b111 {
            0b010 => Deallocated::Ones,
            _ => Deallocated::Zeroes,
        },
        write_protected: space[offset_of!(nvme_id_ns, nsattr)] & 1 != 0,
    })
}

/// The part of the SMART log that Strand uses.
pub(crate) fn health(admin: &dyn NvmeAdmin, device: &File) -> Health {
    match admin.smart_log(device) {
        Ok(page) => Health::Smart(smart(&page)),
        Err(error) => Health::Unknown {
            why: error.to_string(),
        },
    }
}

fn smart(page: &Page) -> Smart {
    let wide = |at: usize| {
        page[at..at + 16]
            .iter()
            .rev()
            .fold(0u128, |value, byte| value << 8 | u128::from(*byte))
    };
    let temperature = offset_of!(nvme_smart_log, temperature);
    // Data units are thousands of 512 bytes; temperature is in kelvin.
    const UNIT: u128 = 512_000;
    Smart {
        critical_warning: page[offset_of!(nvme_smart_log, critical_warning)],
        spare_percent: page[offset_of!(nvme_smart_log, avail_spare)],
        spare_threshold_percent: page[offset_of!(nvme_smart_log, spare_thresh)],
        used_percent: page[offset_of!(nvme_smart_log, percent_used)],
        temperature_celsius: i32::from(u16::from_le_bytes([
            page[temperature],
            page[temperature + 1],
        ])) - 273,
        written_bytes: wide(offset_of!(nvme_smart_log, data_units_written)).saturating_mul(UNIT),
        read_bytes: wide(offset_of!(nvme_smart_log, data_units_read)).saturating_mul(UNIT),
        power_on_hours: wide(offset_of!(nvme_smart_log, power_on_hours)),
        unsafe_shutdowns: wide(offset_of!(nvme_smart_log, unsafe_shutdowns)),
        media_errors: wide(offset_of!(nvme_smart_log, media_errors)),
    }
}

/// A fixed-length ASCII field without its padding.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .trim_matches(['\0', ' '])
        .to_owned()
}
