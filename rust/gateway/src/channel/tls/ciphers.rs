//! Cipher suites by their names in OpenSSL.

use rustls::crypto::{CryptoProvider, ring};
use rustls::version::TLS13;
use rustls::{CipherSuite, ProtocolVersion, SupportedCipherSuite, SupportedProtocolVersion};

use super::{TlsError, TlsVersion};

/// The name of a suite in OpenSSL.
pub(super) fn name_of(suite: CipherSuite) -> &'static str {
    NAMES.iter().find(|(known, _)| *known == suite).map_or("", |(_, name)| name)
}

/// The provider with the suites that are listed; without a list, with all.
pub(super) fn provider(list: Option<&str>) -> Result<CryptoProvider, TlsError> {
    let mut provider = ring::default_provider();
    let Some(list) = list else { return Ok(provider) };
    let chosen = list.split(':').map(suite).collect::<Result<Vec<_>, _>>()?;
    let versions: Vec<ProtocolVersion> = chosen.iter().map(|suite| suite.version().version).collect();
    let mut suites = chosen;
    suites.extend(provider.cipher_suites.iter().filter(|suite| !versions.contains(&suite.version().version)));
    provider.cipher_suites = suites;
    Ok(provider)
}

/// The versions from `min` on.
pub(super) fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    match min {
        TlsVersion::Tls12 => rustls::ALL_VERSIONS,
        TlsVersion::Tls13 => ONLY_13,
    }
}

fn suite(name: &str) -> Result<SupportedCipherSuite, TlsError> {
    let known = NAMES.iter().find(|(_, known)| *known == name);
    let suite = known.and_then(|(id, _)| ring::ALL_CIPHER_SUITES.iter().find(|suite| suite.suite() == *id));
    suite.copied().ok_or_else(|| {
        let all: Vec<_> = NAMES.iter().map(|(_, name)| *name).collect();
        let problem = format!(
            "{name:?} is no cipher suite that rustls has, and patterns such as HIGH or !aNULL are OpenSSL's alone. \
             Name some of {}",
            all.join(":")
        );
        TlsError::new("ciphers", problem)
    })
}

static ONLY_13: &[&SupportedProtocolVersion] = &[&TLS13];

const NAMES: [(CipherSuite, &str); 9] = [
    (CipherSuite::TLS13_AES_256_GCM_SHA384, "TLS_AES_256_GCM_SHA384"),
    (CipherSuite::TLS13_AES_128_GCM_SHA256, "TLS_AES_128_GCM_SHA256"),
    (CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, "TLS_CHACHA20_POLY1305_SHA256"),
    (CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "ECDHE-ECDSA-AES256-GCM-SHA384"),
    (CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "ECDHE-ECDSA-AES128-GCM-SHA256"),
    (CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-ECDSA-CHACHA20-POLY1305"),
    (CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, "ECDHE-RSA-AES256-GCM-SHA384"),
    (CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "ECDHE-RSA-AES128-GCM-SHA256"),
    (CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-RSA-CHACHA20-POLY1305"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(list: &str) -> Vec<&'static str> {
        let provider = provider(Some(list)).unwrap();
        provider.cipher_suites.iter().map(|suite| name_of(suite.suite())).collect()
    }

    #[test]
    fn each_suite_has_its_name() {
        for suite in ring::ALL_CIPHER_SUITES {
            assert_ne!(name_of(suite.suite()), "");
        }
        assert_eq!(ring::ALL_CIPHER_SUITES.len(), NAMES.len());
    }

    #[test]
    fn a_list_restricts_the_versions_that_it_names() {
        let all_13 = ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"];
        let one_12 = "ECDHE-RSA-AES128-GCM-SHA256";
        assert_eq!(chosen(one_12), [&[one_12], &all_13[..]].concat());
        assert_eq!(chosen(&format!("{}:{one_12}", all_13[2])), [all_13[2], one_12]);
        assert_eq!(chosen(all_13[0]).len(), 7);
    }

    #[test]
    fn what_rustls_has_not_is_refused_by_its_name() {
        for (list, named) in [("HIGH:!aNULL", "\"HIGH\""), ("AES128-SHA", "\"AES128-SHA\""), ("", "\"\"")] {
            let error = provider(Some(list)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("ciphers: {named} is no cipher suite")), "{error}");
            assert!(error.ends_with("ECDHE-RSA-CHACHA20-POLY1305"), "{error}");
        }
    }
}
