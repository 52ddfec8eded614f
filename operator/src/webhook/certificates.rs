//! Certificates of the webhook: an authority that lives long, and a server's certificate that is renewed often. Pure, but for
//! making keys.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, jiff::Timestamp, jiff::ToSpan, jiff::tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};

/// A server's certificate is good for this many days, and renewed when so many are left.
const DAYS: i64 = 90;
const RENEW: i64 = 30;
/// The same for the authority.
const AUTHORITY_DAYS: i64 = 3650;
const AUTHORITY_RENEW: i64 = 365;
/// Hours in a day, for spans of absolute time.
const DAY: i64 = 24;

/// Certificates and keys, as they are in the Secret. Keys of the map are those of Secrets of type kubernetes.io/tls, as
/// cert-manager writes them too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// Authorities that clients are to trust, the present one first, as PEM.
    pub authorities: String,
    /// The server's certificate, as PEM.
    pub certificate: String,
    /// Its key, as PEM.
    pub key: String,
    /// What is needed to renew them; none where somebody else does.
    own: Option<Own>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Own {
    authority_key: String,
    name: String,
    until: Until,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Until {
    certificate: Timestamp,
    authority: Timestamp,
}

/// What is to be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Nothing.
    None,
    /// The server's certificate.
    Certificate,
    /// Both; the authority that there was stays trusted.
    Authority,
}

/// No certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum MadeError {
    /// The library's answer.
    #[error("no certificate could be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The clock's answer.
    #[error("no certificate could be made: the clock is beyond what can be reckoned with: {0}")]
    Clock(#[from] k8s_openapi::jiff::Error),
}

impl Certificates {
    /// Reads a Secret. `None` where it has no certificate, or none that can be renewed although they are ours.
    pub fn read(data: &BTreeMap<String, ByteString>, given: bool) -> Option<Self> {
        let text = |key: &str| {
            let bytes = &data.get(key)?.0;
            let text = String::from_utf8(bytes.clone()).ok()?;
            (!text.is_empty()).then_some(text)
        };
        let own = || {
            Some(Own {
                authority_key: text("ca.key")?,
                name: text("name")?,
                until: serde_json::from_str(&text("until")?).ok()?,
            })
        };
        let own = if given { None } else { Some(own()?) };
        Some(Self {
            authorities: text("ca.crt").or_else(|| given.then(String::new))?,
            certificate: text("tls.crt")?,
            key: text("tls.key")?,
            own,
        })
    }

    /// What [`Self::read`] reads.
    pub fn data(&self) -> BTreeMap<String, ByteString> {
        let mut pairs = vec![
            ("ca.crt", self.authorities.clone()),
            ("tls.crt", self.certificate.clone()),
            ("tls.key", self.key.clone()),
        ];
        if let Some(own) = &self.own {
            let until = serde_json::to_string(&own.until).unwrap_or_default();
            pairs.extend([
                ("ca.key", own.authority_key.clone()),
                ("name", own.name.clone()),
                ("until", until),
            ]);
        }
        let bytes = |(key, text): (&str, String)| (key.to_owned(), ByteString(text.into_bytes()));
        pairs.into_iter().map(bytes).collect()
    }

    /// What is to be renewed now, for a server of that name.
    pub fn renewal(&self, name: &str, now: Timestamp) -> Renewal {
        let Some(own) = &self.own else {
            return Renewal::None;
        };
        let soon = |until: Timestamp, days: i64| until.duration_since(now).as_hours() < days * DAY;
        if soon(own.until.authority, AUTHORITY_RENEW) {
            Renewal::Authority
        } else if own.name != name || soon(own.until.certificate, RENEW) {
            Renewal::Certificate
        } else {
            Renewal::None
        }
    }

    /// An authority and a certificate for a server of that name. The newest of the authorities `before` stays trusted: what was
    /// issued under it is still served somewhere.
    ///
    /// # Errors
    /// [`MadeError`].
    pub fn make(name: &str, now: Timestamp, before: &str) -> Result<Self, MadeError> {
        let key = KeyPair::generate()?;
        let until = now.checked_add((AUTHORITY_DAYS * DAY).hours())?;
        let authorities = authority(now, until)?.self_signed(&key)?.pem() + first(before);
        let made = Self {
            authorities,
            certificate: String::new(),
            key: String::new(),
            own: Some(Own {
                authority_key: key.serialize_pem(),
                name: name.to_owned(),
                until: Until {
                    certificate: now,
                    authority: until,
                },
            }),
        };
        made.renewed(Renewal::Certificate, name, now)
    }

    /// The same with what was asked for renewed.
    ///
    /// # Errors
    /// [`MadeError`].
    pub fn renewed(&self, what: Renewal, name: &str, now: Timestamp) -> Result<Self, MadeError> {
        let (Some(own), Renewal::Certificate) = (&self.own, what) else {
            return Self::make(name, now, &self.authorities);
        };
        let authority_key = KeyPair::from_pem(&own.authority_key)?;
        let issuer = Issuer::new(authority(now, own.until.authority)?, authority_key);
        let until = now
            .checked_add((DAYS * DAY).hours())?
            .min(own.until.authority);
        let key = KeyPair::generate()?;
        let mut server = CertificateParams::new(vec![name.to_owned()])?;
        server
            .distinguished_name
            .push(DnType::CommonName, "strand webhook");
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.use_authority_key_identifier_extension = true;
        good(&mut server, now, until)?;
        Ok(Self {
            authorities: self.authorities.clone(),
            certificate: server.signed_by(&key, &issuer)?.pem(),
            key: key.serialize_pem(),
            own: Some(Own {
                name: name.to_owned(),
                until: Until {
                    certificate: until,
                    ..own.until
                },
                ..own.clone()
            }),
        })
    }
}

/// The first certificate of a PEM file.
fn first(pem: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----";
    pem.find(END).map_or("", |at| &pem[..at + END.len()])
}

fn authority(now: Timestamp, until: Timestamp) -> Result<CertificateParams, MadeError> {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "strand webhook authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    good(&mut params, now, until)?;
    Ok(params)
}

/// Year, month and day of a time, some days on: clocks differ.
fn day(time: Timestamp, days: i64) -> Result<(i32, u8, u8), MadeError> {
    let time = time
        .checked_add((days * DAY).hours())?
        .to_zoned(TimeZone::UTC);
    let (month, day) = (time.month().unsigned_abs(), time.day().unsigned_abs());
    Ok((time.year().into(), month, day))
}

/// From the day before `now` to the day after `until`.
fn good(params: &mut CertificateParams, now: Timestamp, until: Timestamp) -> Result<(), MadeError> {
    let (from, to) = (day(now, -1)?, day(until, 1)?);
    params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
    params.not_after = rcgen::date_time_ymd(to.0, to.1, to.2);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(days: i64) -> Timestamp {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        start.checked_add((days * DAY).hours()).unwrap()
    }

    #[test]
    fn the_certificate_is_renewed_often_and_the_authority_rarely() {
        let made = Certificates::make("a.b.svc", at(0), "").unwrap();
        assert_eq!(made.renewal("a.b.svc", at(59)), Renewal::None);
        assert_eq!(made.renewal("a.c.svc", at(0)), Renewal::Certificate);
        assert_eq!(made.renewal("a.b.svc", at(61)), Renewal::Certificate);
        let renewed = made
            .renewed(Renewal::Certificate, "a.b.svc", at(61))
            .unwrap();
        assert_eq!(renewed.authorities, made.authorities);
        assert_ne!(renewed.certificate, made.certificate);
        assert_eq!(renewed.renewal("a.b.svc", at(61)), Renewal::None);

        assert_eq!(renewed.renewal("a.b.svc", at(3290)), Renewal::Authority);
        let next = renewed
            .renewed(Renewal::Authority, "a.b.svc", at(3290))
            .unwrap();
        assert_eq!(next.renewal("a.b.svc", at(3290)), Renewal::None);
        assert!(
            next.authorities.contains(first(&made.authorities)),
            "the former is still trusted"
        );
        let third = next
            .renewed(Renewal::Authority, "a.b.svc", at(6600))
            .unwrap();
        assert!(
            !third.authorities.contains(first(&made.authorities)),
            "and goes with the next"
        );
    }

    #[test]
    fn a_secret_is_read_as_it_was_written() {
        let made = Certificates::make("a.b.svc", at(0), "").unwrap();
        assert_eq!(Certificates::read(&made.data(), false), Some(made.clone()));
        let mut half = made.data();
        half.remove("ca.key");
        assert_eq!(
            Certificates::read(&half, false),
            None,
            "it could not be renewed"
        );
        let given = Certificates::read(&half, true).unwrap();
        assert_eq!(given.renewal("other", at(9999)), Renewal::None);
        assert_eq!(Certificates::read(&BTreeMap::new(), true), None);
    }
}
