//! TLS as the API server wants it: its certificate is checked against one authority, and ours is shown where there is one.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use super::access::{AccessError, Material, Tls};
use super::certificates::certificates;

/// The configuration of one connection.
pub(super) fn client_config(tls: &Tls) -> Result<ClientConfig, AccessError> {
    let fault = |material: &Material, reason: String, remedy| AccessError::Certificate {
        what: material.what.clone(),
        reason,
        remedy,
    };
    const AUTHORITY: &str = "give the cluster's certificate authority";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.authorities, AUTHORITY)? {
        roots.add(certificate).map_err(|error| fault(&tls.authorities, error.to_string(), AUTHORITY))?;
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| fault(&tls.authorities, error.to_string(), AUTHORITY))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(&tls.authorities, error.to_string(), AUTHORITY))?
        .with_webpki_verifier(verifier);
    let Some((certificate, key)) = &tls.client else { return Ok(builder.with_no_client_auth()) };
    const PAIR: &str = "give the certificate and the private key that was made with it";
    let chain = certificates(certificate, PAIR)?;
    let private_key = PrivateKeyDer::from_pem_slice(&key.pem)
        .map_err(|error| fault(key, format!("it holds no private key in PEM: {error}"), PAIR))?;
    builder
        .with_client_auth_cert(chain, private_key)
        .map_err(|error| fault(key, format!("it does not belong to {}: {error}", certificate.what), PAIR))
}
