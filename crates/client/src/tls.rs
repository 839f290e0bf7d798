//! Which certificates are trusted: those of the operating system, so that a private authority installed there works.

use std::io;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;

/// The cryptography behind TLS, chosen here and not left to a process-wide default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The operating system's root certificates.
///
/// # Errors
/// A sentence for people when there are none.
pub(crate) fn roots() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err("this machine has no root certificates to check the broker's with; install ca-certificates".into());
    }
    Ok(found.certs)
}

/// What WebSocket connections use.
pub(crate) fn client_config() -> Result<Arc<rustls::ClientConfig>, String> {
    let mut store = rustls::RootCertStore::empty();
    store.add_parsable_certificates(roots()?);
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Why a connection failed. What answers TLS with anything else is plain, which the error itself says in words of its own.
pub(crate) fn why(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(_)) => "the broker does not speak TLS here; use http://".into(),
        _ => error.to_string(),
    }
}
