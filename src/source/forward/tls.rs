//! TLS of the TCP listener, from PEM files.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::Tls;
use crate::source::BindError;

/// A server's settings, read and checked.
#[derive(Clone)]
pub(super) struct Acceptor(pub(super) Arc<ServerConfig>);

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

/// Reads the files of a server's settings.
pub(super) fn acceptor(tls: &Tls) -> Result<Acceptor, BindError> {
    let chain = certificates(&tls.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| failed(&tls.key, "no private key", error))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&tls.certificate, "no protocol version", error))?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| failed(path, "not an authority", error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| failed(path, "not an authority", error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder
        .with_single_cert(chain, key)
        .map_err(|error| failed(&tls.key, "does not fit the certificate", error))?;
    Ok(Acceptor(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BindError> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let certificates = read().map_err(|error| failed(path, "cannot read certificates", error))?;
    if certificates.is_empty() {
        return Err(BindError::Tls { path: path.into(), why: "holds no certificate".into() });
    }
    Ok(certificates)
}

fn failed(path: &Path, what: &str, error: impl fmt::Display) -> BindError {
    BindError::Tls { path: path.into(), why: format!("{what}: {error}") }
}
