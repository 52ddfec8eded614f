//! Names on the fabric. They carry the attachment's generation, so that a consumer of an older attachment asks for a subsystem
//! that is not there any more, and is a host that no subsystem lets in.

use std::fmt;
use std::str::FromStr;

use ring::digest;
use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

/// What an NVMe Qualified Name of ours starts with (NVM Express Base Specification 2.0, 4.5: date of the domain, domain reversed).
const OURS: &str = "nqn.2024-01.dev.strand:";

/// The NVMe Qualified Name of one leg in one attachment, or of the host that attaches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Nqn {
    /// The subsystem that a leg is exported as.
    Leg {
        /// The leg's UUID.
        leg: Uuid,
        /// The attachment's generation.
        generation: u64,
    },
    /// Who may connect to it. A host of its own for each attachment of each leg: it has one key, and the kernel wants one host id
    /// a name.
    Host {
        /// The leg's UUID.
        leg: Uuid,
        /// The attachment's generation.
        generation: u64,
    },
}

impl Nqn {
    /// The subsystem of a leg in an attachment.
    pub fn leg(leg: Uuid, generation: u64) -> Self {
        Self::Leg { leg, generation }
    }

    /// The one host of the same attachment.
    pub fn host(self) -> Self {
        let (leg, generation) = self.parts();
        Self::Host { leg, generation }
    }

    /// The leg's UUID.
    pub fn uuid(self) -> Uuid {
        self.parts().0
    }

    /// The attachment's generation.
    pub fn generation(self) -> u64 {
        self.parts().1
    }

    fn parts(self) -> (Uuid, u64) {
        match self {
            Self::Leg { leg, generation } | Self::Host { leg, generation } => (leg, generation),
        }
    }

    /// The host id that goes with a name: always the same, and another for each name.
    pub fn id(self) -> Uuid {
        let digest = digest::digest(&digest::SHA256, self.to_string().as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.as_ref()[..16]);
        Builder::from_custom_bytes(bytes).into_uuid()
    }
}

impl fmt::Display for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Leg { .. } => "leg",
            Self::Host { .. } => "host",
        };
        let (leg, generation) = self.parts();
        write!(f, "{OURS}{kind}:{leg}:{generation}")
    }
}

/// A name that is not one of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a leg or of its host")]
pub struct NotOurs(String);

impl FromStr for Nqn {
    type Err = NotOurs;

    /// Takes what [`fmt::Display`] writes, to the byte, and nothing else.
    fn from_str(text: &str) -> Result<Self, NotOurs> {
        let read = || {
            let mut parts = text.strip_prefix(OURS)?.split(':');
            let (kind, leg, generation) = (parts.next()?, parts.next()?, parts.next()?);
            let (leg, generation) = (leg.parse().ok()?, generation.parse().ok()?);
            let name = match kind {
                "leg" => Self::Leg { leg, generation },
                "host" => Self::Host { leg, generation },
                _ => return None,
            };
            (name.to_string() == text).then_some(name)
        };
        read().ok_or_else(|| NotOurs(text.to_owned()))
    }
}

impl TryFrom<String> for Nqn {
    type Error = NotOurs;

    fn try_from(text: String) -> Result<Self, NotOurs> {
        text.parse()
    }
}

impl From<Nqn> for String {
    fn from(name: Nqn) -> String {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_name_reads_back_and_fits(leg in any::<u128>(), generation: u64) {
            let name = Nqn::leg(Uuid::from_u128(leg), generation);
            prop_assert_eq!(name.to_string().parse(), Ok(name));
            prop_assert_eq!(name.host().to_string().parse(), Ok(name.host()));
            prop_assert!(name.host().to_string().len() < 223, "the specification's limit");
            prop_assert_ne!(name.id(), name.host().id());
        }

        #[test]
        fn what_reads_is_written_the_same_way(text in "(nqn\\.2024-01\\.dev\\.strand:)?(leg|host|x)?:?[0-9a-fA-F-]{0,40}:?[+0-9]{0,22}") {
            if let Ok(name) = text.parse::<Nqn>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
