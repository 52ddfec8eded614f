//! The server's certificate and token: made once, kept in the state directory.

use std::{fs, io, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use serde::{Deserialize, Serialize};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

/// What proves the server to clients and clients to the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The self-signed certificate, which is also the authority that clients trust, as PEM.
    pub(crate) certificate: String,
    key: String,
    pub(crate) token: String,
    /// The port that kubeconfigs name.
    pub(crate) port: u16,
}

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file could not be read or written.
    #[error("the API server's identity in {file}: {source}; check that the directory is writable")]
    Io {
        /// The file.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The file does not hold an identity.
    #[error(
        "the API server's identity in {file} cannot be used: {why}; remove the file to have a new one made (kubeconfigs change)"
    )]
    Unusable {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// A new certificate could not be made.
    #[error("no certificate could be made: {0}; this is a fault of the build")]
    Make(#[from] rcgen::Error),
}

impl Identity {
    /// Reads the identity in `dir`, or makes one.
    pub(crate) fn load_or_make(dir: &Path) -> Result<Self, TlsError> {
        let path = dir.join("identity.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| TlsError::Unusable {
                file: path.display().to_string(),
                why: e.to_string(),
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => make(),
            Err(source) => Err(TlsError::Io {
                file: path.display().to_string(),
                source,
            }),
        }
    }

    /// Keeps the identity in `dir`, readable by its owner alone.
    pub(crate) fn save(&self, dir: &Path) -> Result<(), TlsError> {
        let path = dir.join("identity.json");
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        write_private(&path, &text).map_err(|source| TlsError::Io {
            file: path.display().to_string(),
            source,
        })
    }

    /// What accepts TLS connections under this identity.
    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let unusable = |why: String| TlsError::Unusable {
            file: "identity.json".into(),
            why,
        };
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes())
            .map_err(|e| unusable(e.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|e| unusable(e.to_string()))?;
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| unusable(e.to_string()))?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key);
        let mut config = config.map_err(|e| unusable(e.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn make() -> Result<Identity, TlsError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![
        "localhost".into(),
        "kubernetes".into(),
        "127.0.0.1".into(),
        "::1".into(),
    ])?;
    params
        .distinguished_name
        .push(DnType::CommonName, "strand embedded API server");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2120, 1, 1);
    let certificate = params.self_signed(&key)?;
    let token = format!(
        "{}{}",
        uuid::Uuid::new_v4().simple(),
        uuid::Uuid::new_v4().simple()
    );
    Ok(Identity {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        token,
        port: 0,
    })
}

/// Writes a file that others cannot read, as a whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    io::Write::write_all(&mut file, bytes)?;
    fs::rename(&fresh, path)
}
