//! Options and files that cannot be used say why.

use std::fs;
use std::path::Path;

use super::super::{CertificateFiles, ClientCertificate, TlsClient, TlsClientOptions, TlsOptions, TlsServer};
use super::files::Files;

/// These options say what is wrong with them.
fn expect_errors<const N: usize>(table: [(TlsOptions, String); N]) {
    for (options, said) in table {
        let error = TlsServer::new(&options).unwrap_err().to_string();
        assert!(error.starts_with(&said), "{error}\nnot {said}");
    }
}

#[test]
fn a_certificate_and_a_key_that_cannot_be_used_say_why() {
    let files = Files::new();
    let device = fs::read_to_string(files.path("device.pem")).unwrap();
    let (certificate, key) = device.split_at(device.find("-----BEGIN PRIVATE").unwrap());
    files.write("certificate.pem", certificate);
    files.write("key.pem", key);
    files.write("junk.pem", "not a certificate\n");
    files.write("encrypted.pem", &key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"));
    files.write(
        "old.pem",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
    );
    let pair = |certfile: &str, keyfile: &str| {
        let keyfile = (!keyfile.is_empty()).then(|| files.path(keyfile));
        let certificate = Some(CertificateFiles { certfile: files.path(certfile), keyfile });
        TlsOptions { certificate, ..TlsOptions::default() }
    };
    let folder = files.folder.display();
    let both = |keyfile: &str, said: &str| {
        format!("certfile: {folder}/certificate.pem and {folder}/{keyfile}: {said}")
    };
    expect_errors([
        (TlsOptions::default(), "certfile: is needed".into()),
        (pair("none.pem", "key.pem"), format!("certfile: {folder}/none.pem: no such file")),
        (pair("certificate.pem", "none.pem"), format!("keyfile: {folder}/none.pem: no such file")),
        (pair("certificate.pem", "server.pem"), both("server.pem", "the key is not the certificate's")),
        (pair("certificate.pem", "junk.pem"), both("junk.pem", "not a certificate and key in PEM form")),
        (
            pair("certificate.pem", "encrypted.pem"),
            both("encrypted.pem", "the key is encrypted, and rustls reads"),
        ),
        (
            pair("certificate.pem", "old.pem"),
            both("old.pem", "the key is encrypted, and rustls reads no such key"),
        ),
        (
            pair("junk.pem", "key.pem"),
            format!(
                "certfile: {folder}/junk.pem and {folder}/key.pem: not a certificate and key in PEM form"
            ),
        ),
        (
            pair("certificate.pem", ""),
            format!("certfile: {folder}/certificate.pem: not a certificate and key"),
        ),
    ]);
}

#[test]
fn options_that_cannot_be_meant_say_why() {
    let files = Files::new();
    files.issue("nameless.pem", &[], &rcgen::PKCS_ECDSA_P256_SHA256, |_| ());
    files.write("junk.pem", "not a certificate\n");
    let with = |change: &dyn Fn(&mut TlsOptions)| {
        let mut options = files.options();
        change(&mut options);
        options
    };
    let more = |names: [&str; 2]| TlsOptions {
        certificates: names.map(|name| files.pair(name)).into(),
        ..files.options()
    };
    let cafile = |name: &str| TlsOptions { cafile: Some(files.path(name)), ..files.options() };
    let folder = files.folder.display();
    expect_errors([
        (
            more(["server.pem", "nameless.pem"]),
            format!("certificates[1].certfile: {folder}/nameless.pem: no host name in it (subjectAltName)"),
        ),
        (
            more(["none.pem", "none.pem"]),
            format!("certificates[0].certfile: {folder}/none.pem: no such file"),
        ),
        (cafile("junk.pem"), format!("cafile: {folder}/junk.pem: no certificate in it")),
        (cafile("none.pem"), format!("cafile: {folder}/none.pem: No such file or directory")),
        (
            with(&|options| options.client_certificate = ClientCertificate::Required),
            "cafile: is needed for client_certificate: required".into(),
        ),
        (
            with(&|options| options.crlfile = Some(files.path("server.pem"))),
            format!("crlfile: {folder}/server.pem: no revocation list in it"),
        ),
        (
            with(&|options| options.ciphers = Some("HIGH".into())),
            "ciphers: \"HIGH\" is no cipher suite".into(),
        ),
        (with(&|options| options.strict_x509 = Some(true)), "strict_x509: rustls has no such checks".into()),
    ]);
    assert!(TlsServer::new(&with(&|options| options.strict_x509 = Some(false))).is_ok());
    let upstream = [
        (TlsClientOptions::default(), "cafile: is needed, or insecure: true"),
        (
            TlsClientOptions { server_name: Some("no name".into()), ..files.client_options() },
            "server_name: \"no name\" is neither",
        ),
    ];
    for (options, said) in upstream {
        let error = TlsClient::new(&options).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
}

#[test]
fn a_certificate_of_version_1_is_refused_by_name() {
    let error = TlsServer::new(&TlsOptions {
        certificate: Some(CertificateFiles {
            certfile: Path::new("tests/x509_v1.pem").into(),
            keyfile: None,
        }),
        ..TlsOptions::default()
    })
    .unwrap_err();
    let said =
        "certfile: tests/x509_v1.pem: a certificate of X.509 version 1, and rustls takes version 3 alone";
    assert!(error.to_string().starts_with(said), "{error}");
}
