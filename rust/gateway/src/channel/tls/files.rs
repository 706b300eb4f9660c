//! Certificates, keys and revocation lists, out of files in PEM form.

use std::fs;
use std::io;
use std::path::Path;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use webpki::EndEntityCert;

use super::{CertificateFiles, TlsError};

/// A certificate with its chain and its key. `prefix` stands in front of the options' names.
pub(super) fn certified_key(
    prefix: &str,
    files: &CertificateFiles,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let CertificateFiles { certfile, keyfile } = files;
    let (option, key_option) = (format!("{prefix}certfile"), format!("{prefix}keyfile"));
    for (option, path) in [(&option, Some(certfile)), (&key_option, keyfile.as_ref())] {
        if let Some(path) = path.filter(|path| !path.is_file()) {
            return Err(TlsError::of_file(option, path, "no such file"));
        }
    }
    let both = match keyfile {
        None => certfile.display().to_string(),
        Some(keyfile) => format!("{} and {}", certfile.display(), keyfile.display()),
    };
    let wrong = |problem: &str| TlsError::new(&option, format!("{both}: {problem}"));
    let no_pem =
        |why: &dyn std::fmt::Display| wrong(&format!("not a certificate and key in PEM form ({why})"));
    let chain = read(&option, certfile)?;
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>().map_err(|error| no_pem(&error))?;
    let Some(certificate) = chain.first() else { return Err(no_pem(&"no certificate in it")) };
    let key_pem = read(&key_option, keyfile.as_ref().unwrap_or(certfile))?;
    if is_encrypted(&key_pem) {
        return Err(wrong(
            "the key is encrypted, and rustls reads no such key. Write one that is not with `openssl pkey -in KEY -out NEW`",
        ));
    }
    let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| no_pem(&error))?;
    EndEntityCert::try_from(certificate).map_err(|error| match error {
        webpki::Error::UnsupportedCertVersion => {
            wrong("a certificate of X.509 version 1, and rustls takes version 3 alone. Issue it anew")
        }
        error => wrong(&format!("a certificate that rustls does not take ({error})")),
    })?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => wrong("the key is not the certificate's"),
        _ => wrong(
            "the key is none that rustls takes: RSA of 2048 to 4096 bits, ECDSA on P-256 or P-384, Ed25519",
        ),
    })
}

/// The authorities in a file.
pub(super) fn authorities(option: &str, path: &Path) -> Result<RootCertStore, TlsError> {
    let pem = read(option, path)?;
    let mut store = RootCertStore::empty();
    for (at, certificate) in CertificateDer::pem_slice_iter(&pem).enumerate() {
        let certificate = certificate.map_err(|error| TlsError::of_file(option, path, error))?;
        store.add(certificate).map_err(|error| {
            let problem = format!("certificate {} is none that rustls takes ({error})", at + 1);
            TlsError::of_file(option, path, problem)
        })?;
    }
    if store.is_empty() {
        return Err(TlsError::of_file(option, path, "no certificate in it"));
    }
    Ok(store)
}

/// The revocation lists in a file.
pub(super) fn revocation_lists(
    option: &str,
    path: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let lists = CertificateRevocationListDer::pem_slice_iter(&read(option, path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::of_file(option, path, error))?;
    if lists.is_empty() {
        return Err(TlsError::of_file(option, path, "no revocation list in it"));
    }
    Ok(lists)
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError::of_file(option, path, without_number(&error)))
}

/// The text alone, as other programs show it.
fn without_number(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// Whether a key in PEM form needs a password, in the form of PKCS #8 or in that of old OpenSSL.
fn is_encrypted(pem: &[u8]) -> bool {
    [&b"-----BEGIN ENCRYPTED PRIVATE KEY-----"[..], b"Proc-Type: 4,ENCRYPTED"]
        .iter()
        .any(|mark| pem.windows(mark.len()).any(|window| window == *mark))
}
