//! What users get wrong about certificates, found before the handshake says it in fewer words.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::BasicConstraints;

use super::access::{AccessError, Material, Tls};

const AUTHORITY_REMEDY: &str = "give the certificate of the authority that signed the API server's certificate \
    (kubeadm: /etc/kubernetes/pki/ca.crt)";

/// Refuses certificates that can never do what they are given for.
pub(super) fn check(tls: &Tls) -> Result<(), AccessError> {
    check_authorities(&tls.authorities)?;
    match &tls.client {
        Some((certificate, _)) => check_client(certificate, SystemTime::now()),
        None => Ok(()),
    }
}

/// The certificates in a PEM text.
pub(super) fn certificates(
    material: &Material,
    remedy: &'static str,
) -> Result<Vec<CertificateDer<'static>>, AccessError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&material.pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) if contains(&material.pem, b"PRIVATE KEY") => {
            Err(fault(material, "it holds a private key and no certificate", remedy))
        }
        Ok(_) => Err(fault(material, "it holds no certificate in PEM", remedy)),
        Err(error) => Err(fault(material, &format!("it is no PEM: {error}"), remedy)),
    }
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

fn fault(material: &Material, reason: &str, remedy: &'static str) -> AccessError {
    AccessError::Certificate { what: material.what.clone(), reason: reason.to_owned(), remedy }
}

fn parsed(
    material: &Material,
    der: &CertificateDer<'_>,
    remedy: &'static str,
) -> Result<Certificate, AccessError> {
    Certificate::from_der(der)
        .map_err(|error| fault(material, &format!("it holds no X.509 certificate: {error}"), remedy))
}

fn check_authorities(material: &Material) -> Result<(), AccessError> {
    let mut leaf = None;
    for der in certificates(material, AUTHORITY_REMEDY)? {
        let certificate = parsed(material, &der, AUTHORITY_REMEDY)?;
        if is_authority(&certificate) {
            return Ok(());
        }
        leaf.get_or_insert(certificate.tbs_certificate.subject);
    }
    let subject = leaf.map(|subject| subject.to_string()).unwrap_or_default();
    let reason = format!(
        "certificate `{}` is no certificate authority's, but a server's or user's own",
        bounded(&subject)
    );
    Err(fault(material, &reason, AUTHORITY_REMEDY))
}

/// Certificates of X.509 version 1 have no extensions, and may be an authority's.
fn is_authority(certificate: &Certificate) -> bool {
    match certificate.tbs_certificate.get::<BasicConstraints>() {
        Ok(Some((_, constraints))) => constraints.ca,
        Ok(None) => certificate.tbs_certificate.extensions.is_none(),
        Err(_) => false,
    }
}

fn check_client(material: &Material, now: SystemTime) -> Result<(), AccessError> {
    const REMEDY: &str = "renew it (kubeadm: `kubeadm certs renew all`), or give another user";
    let chain = certificates(material, REMEDY)?;
    let Some(leaf) = chain.first() else { return Ok(()) };
    let validity = parsed(material, leaf, REMEDY)?.tbs_certificate.validity;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    if now > validity.not_after.to_unix_duration() {
        return Err(fault(material, &format!("it expired at {}", validity.not_after), REMEDY));
    }
    if now < validity.not_before.to_unix_duration() {
        let reason = format!("it is valid only from {} on", validity.not_before);
        return Err(fault(material, &reason, "check this node's clock"));
    }
    Ok(())
}

fn bounded(text: &str) -> String {
    text.chars().take(120).flat_map(char::escape_default).collect()
}
