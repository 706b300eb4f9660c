//! Why a handshake has failed: a stable word, and details behind a colon.

use rustls::{CertificateError, Error, InvalidMessage, OtherError, PeerIncompatible};

/// The word for what a client has done wrong.
pub(super) fn of_client(error: &Error) -> String {
    match error {
        Error::NoCertificatesPresented => "no-certificate".into(),
        Error::InvalidCertificate(CertificateError::Other(OtherError(other)))
            if other.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity) =>
        {
            "bad-certificate: an authority's own certificate (CA:TRUE), which rustls does not take from a client".into()
        }
        Error::InvalidCertificate(wrong) => format!("bad-certificate: {wrong}"),
        Error::InvalidCertRevocationList(wrong) => format!("bad-certificate: the revocation list: {wrong:?}"),
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => "wrong-version: the client offers no version that is served".into(),
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            "wrong-version: not TLS".into()
        }
        Error::PeerIncompatible(
            incompatible @ (PeerIncompatible::NoCipherSuitesInCommon
            | PeerIncompatible::NoKxGroupsInCommon
            | PeerIncompatible::NoSignatureSchemesInCommon
            | PeerIncompatible::NoEcPointFormatsInCommon
            | PeerIncompatible::UncompressedEcPointsRequired),
        ) => format!("no-shared-cipher: {incompatible:?}"),
        Error::AlertReceived(alert) => format!("closed: alert {alert:?}"),
        other => format!("closed: {other}"),
    }
}

/// A handshake with a server that has failed, or a session that has broken, in words.
pub(super) fn in_words(error: &Error) -> String {
    format!("TLS: {error}")
}
