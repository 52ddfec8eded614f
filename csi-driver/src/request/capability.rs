//! How a volume is to be used.

use std::str::FromStr;

use strand_api::VolumeMode;
use strand_csi::v1::VolumeCapability;
use strand_csi::v1::volume_capability::access_mode::Mode;
use strand_csi::v1::volume_capability::{AccessType, MountVolume};

use crate::error::Error;

const FIELD: &str = "volume_capability";
/// Most bytes of mount options: what mount(2) takes is a page.
const MAX_OPTIONS: usize = 4095;

/// What mount(8) takes as an option and does another thing than mounting the volume's device where it shall be.
const ACTS: [&str; 14] = [
    "bind",
    "rbind",
    "move",
    "remount",
    "loop",
    "offset",
    "sizelimit",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "private",
    "rprivate",
    "unbindable",
];

/// A file system that volumes can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FsType {
    /// XFS.
    #[default]
    Xfs,
    /// ext4.
    Ext4,
}

impl FsType {
    /// As mount(8) calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
            Self::Ext4 => "ext4",
        }
    }

    /// Smallest volume in bytes that it can be made on. XFS: 300 MiB, as mkfs.xfs since xfsprogs 5.19 says.
    pub fn smallest(self) -> u64 {
        match self {
            Self::Xfs => 300 << 20,
            Self::Ext4 => 16 << 20,
        }
    }
}

impl FromStr for FsType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "" => Ok(Self::default()),
            "xfs" => Ok(Self::Xfs),
            "ext4" => Ok(Self::Ext4),
            _ => Err(Error::invalid(
                FIELD,
                "fs_type is neither xfs nor ext4 (left out: xfs)",
            )),
        }
    }
}

/// How a volume is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// As a device.
    Block,
    /// By its file system.
    Mount {
        /// Which.
        fs: FsType,
        /// Options for mount(8).
        options: Vec<String>,
    },
}

/// By how many, for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// One node writes.
    OneNode,
    /// One path of one node writes (ReadWriteOncePod).
    OnePath,
    /// One node reads.
    OneReader,
    /// Many nodes read.
    ManyReaders,
}

/// A capability, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// How it is reached.
    pub access: Access,
    /// By how many.
    pub sharing: Sharing,
}

impl Capability {
    /// Reads one.
    ///
    /// # Errors
    /// Where it is missing or incomplete, or no volume of this driver can have it.
    pub fn read(capability: Option<&VolumeCapability>) -> Result<Self, Error> {
        let capability = capability.ok_or(Error::Missing(FIELD))?;
        let access = match &capability.access_type {
            None => return Err(Error::Missing("access_type in volume_capability")),
            Some(AccessType::Block(_)) => Access::Block,
            Some(AccessType::Mount(mount)) => read_mount(mount)?,
        };
        let mode = capability.access_mode.as_ref().map(|m| m.mode());
        let sharing = match mode {
            None | Some(Mode::Unknown) => {
                return Err(Error::Missing("access_mode in volume_capability"));
            }
            Some(Mode::SingleNodeWriter | Mode::SingleNodeMultiWriter) => Sharing::OneNode,
            Some(Mode::SingleNodeSingleWriter) => Sharing::OnePath,
            Some(Mode::SingleNodeReaderOnly) => Sharing::OneReader,
            Some(Mode::MultiNodeReaderOnly) => Sharing::ManyReaders,
            Some(Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter) => {
                return Err(Error::invalid(
                    FIELD,
                    "a volume that is written can be on one node at a time: ask for a mode with a single node, or for readers only",
                ));
            }
        };
        Ok(Self { access, sharing })
    }

    /// Reads those of one volume: all of one mode, and one file system.
    ///
    /// # Errors
    /// As [`Self::read`], or where they contradict each other.
    pub fn read_all(
        capabilities: &[VolumeCapability],
    ) -> Result<(VolumeMode, Option<FsType>), Error> {
        let mut found: Option<(VolumeMode, Option<FsType>)> = None;
        for capability in capabilities {
            let one = Self::read(Some(capability))?;
            let this = (one.mode(), one.fs());
            if found.is_some_and(|earlier| earlier != this) {
                let why = "a volume is either raw blocks or one file system, not both";
                return Err(Error::invalid("volume_capabilities", why));
            }
            found = Some(this);
        }
        found.ok_or(Error::Missing("volume_capabilities"))
    }

    /// The mode of a volume that can be used so.
    pub fn mode(&self) -> VolumeMode {
        match self.access {
            Access::Block => VolumeMode::Block,
            Access::Mount { .. } => VolumeMode::Filesystem,
        }
    }

    /// Its file system.
    pub fn fs(&self) -> Option<FsType> {
        match self.access {
            Access::Block => None,
            Access::Mount { fs, .. } => Some(fs),
        }
    }
}

fn read_mount(mount: &MountVolume) -> Result<Access, Error> {
    if !mount.volume_mount_group.is_empty() {
        let why = "volume_mount_group is not supported; the file system's own groups are (fsGroup)";
        return Err(Error::invalid(FIELD, why));
    }
    let mut length = 0;
    for option in &mount.mount_flags {
        length += option.len() + 1;
        if option.is_empty() || option.starts_with('-') || option.chars().any(char::is_control) {
            let why = "a mount option is empty, begins with '-' or contains control characters";
            return Err(Error::invalid(FIELD, why));
        }
        let names = option.split(',').map(|one| one.split('=').next());
        if let Some(act) = names.flatten().find(|name| ACTS.contains(&name.trim())) {
            let why = format!("{act} is no option of a file system");
            return Err(Error::invalid(FIELD, why));
        }
    }
    if length > MAX_OPTIONS {
        let why =
            format!("mount options are {length} bytes long, of which {MAX_OPTIONS} are allowed");
        return Err(Error::invalid(FIELD, why));
    }
    Ok(Access::Mount {
        fs: mount.fs_type.parse()?,
        options: mount.mount_flags.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use strand_csi::v1::volume_capability::{AccessMode, BlockVolume};

    fn mount(fs_type: &str, flags: &[&str], mode: Mode) -> VolumeCapability {
        VolumeCapability {
            access_mode: Some(AccessMode { mode: mode.into() }),
            access_type: Some(AccessType::Mount(MountVolume {
                fs_type: fs_type.into(),
                mount_flags: flags.iter().map(|f| (*f).to_owned()).collect(),
                volume_mount_group: String::new(),
            })),
        }
    }

    #[test]
    fn what_no_volume_can_do_is_refused() {
        let all = [
            mount("btrfs", &[], Mode::SingleNodeWriter),
            mount("xfs", &["a\nb"], Mode::SingleNodeWriter),
            mount("xfs", &["-o"], Mode::SingleNodeWriter),
            mount("xfs", &["remount"], Mode::SingleNodeWriter),
            mount("xfs", &["noatime,loop=/dev/loop0"], Mode::SingleNodeWriter),
            mount("xfs", &[&"x".repeat(5000)], Mode::SingleNodeWriter),
            mount("xfs", &[], Mode::MultiNodeMultiWriter),
            mount("xfs", &[], Mode::Unknown),
            VolumeCapability::default(),
        ];
        for capability in &all {
            assert!(
                Capability::read(Some(capability)).is_err(),
                "{capability:?}"
            );
        }
        assert!(Capability::read(None).is_err());
        assert!(Capability::read_all(&[]).is_err());
    }

    #[test]
    fn one_volume_has_one_mode() {
        let block = VolumeCapability {
            access_type: Some(AccessType::Block(BlockVolume {})),
            ..mount("", &[], Mode::SingleNodeWriter)
        };
        let xfs = mount("", &[], Mode::SingleNodeWriter);
        let also = mount("xfs", &["noatime"], Mode::MultiNodeReaderOnly);
        assert!(Capability::read_all(&[block, xfs.clone()]).is_err());
        let read = Capability::read_all(&[xfs, also]).unwrap();
        assert_eq!(read, (VolumeMode::Filesystem, Some(FsType::Xfs)));
    }
}
