//! How the broker knows its gateway, and learns of the real client: by the password of the CONNECT.
//!
//! The password is the secret of this broker, and behind it a PROXY header of version 2. rmqtt could read the header in front of
//! the CONNECT, too. But it reads headers in its accept loop, waits up to 5 s for each, and sleeps for a second after each one
//! that is wrong (rmqtt-net 0.5.0, `accept_tcp`; rmqtt 0.24.0, `listen_tcp`): any process of this machine could hold up every
//! login by connecting and sending nothing.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use proxyproto_codec::{Options, Status, decode};

/// What only the gateway of this process knows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; Self::LENGTH]);

impl Secret {
    /// Its length, in bytes.
    pub const LENGTH: usize = 32;

    /// A new one, from the kernel.
    pub(crate) fn random() -> io::Result<Self> {
        let mut bytes = [0; Self::LENGTH];
        let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        if filled < bytes.len() {
            return Err(io::Error::other("the kernel gives no random bytes"));
        }
        Ok(Self(bytes))
    }

    /// The bytes that a password begins with.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The address of the real client, if the password is one of the gateway's.
    pub(crate) fn client_of(&self, password: &[u8]) -> Option<SocketAddr> {
        let (secret, header) = password.split_first_chunk::<{ Self::LENGTH }>()?;
        // Takes as long for a secret that begins right as for one that does not.
        let difference = self.0.iter().zip(secret).fold(0, |bits, (own, other)| bits | (own ^ other));
        if difference != 0 { None } else { address_in(header) }
    }
}

/// The address of the real client of a session that has logged in.
pub(crate) fn client_of_session(password: &[u8]) -> Option<SocketAddr> {
    address_in(password.get(Secret::LENGTH..)?)
}

fn address_in(header: &[u8]) -> Option<SocketAddr> {
    match decode(header, &Options::default()) {
        Ok(Status::Complete(header)) => {
            let source = header.source()?.socket_addr()?;
            Some(SocketAddr::new(source.ip().to_canonical(), source.port()))
        }
        _ => None,
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use proxyproto_codec::{Header, Transport};

    use super::*;

    fn header(source: &str) -> Vec<u8> {
        let source: SocketAddr = source.parse().unwrap();
        let header = Header::v2(source.into(), source.into(), Transport::Stream, &[], false).unwrap();
        header.raw().to_vec()
    }

    #[test]
    fn only_the_secret_and_a_header_behind_it_open() {
        let secret = Secret::random().unwrap();
        let other = Secret::random().unwrap();
        assert_ne!(secret, other);
        let good = [secret.as_bytes(), &header("192.0.2.7:5")].concat();
        assert_eq!(secret.client_of(&good), Some("192.0.2.7:5".parse().unwrap()));
        assert_eq!(client_of_session(&good), Some("192.0.2.7:5".parse().unwrap()));
        let wrong = [
            [other.as_bytes(), &header("192.0.2.7:5")].concat(),
            secret.as_bytes().to_vec(),
            [secret.as_bytes(), b"PROXY UNKNOWN\r\n"].concat(),
            good[..good.len() - 1].to_vec(),
            good[1..].to_vec(),
            Vec::new(),
        ];
        for password in wrong {
            assert_eq!(secret.client_of(&password), None, "{password:?}");
        }
    }

    #[test]
    fn a_mapped_address_is_an_ipv4_one() {
        let password = [&[0; Secret::LENGTH][..], &header("[::ffff:192.0.2.7]:5")].concat();
        assert_eq!(client_of_session(&password), Some("192.0.2.7:5".parse().unwrap()));
    }
}
