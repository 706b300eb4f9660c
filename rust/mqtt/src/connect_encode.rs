//! Writes a CONNECT anew, with another client id, user name or password. Everything else stays as it was
//! received.

use alloc::vec::Vec;
use core::fmt;

use crate::connect::{PASSWORD, USERNAME};
use crate::connect_decode::FIRST_BYTE;
use crate::reader::Span;
use crate::writer::{packet, push_binary};
use crate::{Connect, EncodeError, Field, Version, Versions};

impl<B: AsRef<[u8]>> Connect<B> {
    /// Starts to change the packet.
    ///
    /// ```
    /// use proxyproto_mqtt::{Connect, Versions};
    ///
    /// let received = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04dev1";
    /// let connect = Connect::decode(received, Versions::ALL)?;
    /// let changed = connect.change().username(Some("alice")).password(Some(b"secret")).encode()?;
    /// assert_eq!((changed.client_id(), changed.username()), ("dev1", Some("alice")));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn change(&self) -> Change<'_> {
        Change {
            connect: Connect { raw: self.raw(), parsed: self.parsed },
            client_id: self.client_id(),
            username: self.username(),
            password: self.password(),
        }
    }
}

/// A CONNECT with changes; see [`Connect::change`]. What is not changed stays as it was received.
#[derive(Clone, Copy)]
#[must_use = "encode() makes the packet"]
pub struct Change<'a> {
    connect: Connect<&'a [u8]>,
    client_id: &'a str,
    username: Option<&'a str>,
    password: Option<&'a [u8]>,
}

impl<'a> Change<'a> {
    /// Sets the client id.
    pub const fn client_id(mut self, client_id: &'a str) -> Self {
        self.client_id = client_id;
        self
    }

    /// Sets the user name, or takes it out.
    pub const fn username(mut self, username: Option<&'a str>) -> Self {
        self.username = username;
        self
    }

    /// Sets the password, or takes it out.
    pub const fn password(mut self, password: Option<&'a [u8]>) -> Self {
        self.password = password;
        self
    }

    /// The packet. If nothing has changed, its bytes are those that were received.
    ///
    /// # Errors
    ///
    /// [`EncodeError::TooLong`] and [`EncodeError::PacketTooLong`], and [`EncodeError::Invalid`] for what a
    /// client must not send: a NUL in a text, a password without a user name before MQTT 5, an empty client
    /// id where the version does not allow it.
    pub fn encode(self) -> Result<Connect, EncodeError> {
        let connect = self.connect;
        let now = (self.client_id, self.username, self.password);
        if now == (connect.client_id(), connect.username(), connect.password()) {
            return Ok(connect.to_owned());
        }
        let bytes = self.bytes()?;
        let changed =
            Connect::decode(&bytes, Versions::ALL).map_err(|refusal| EncodeError::Invalid(refusal.detail))?;
        Ok(Connect { parsed: changed.parsed, raw: bytes.into() })
    }

    fn bytes(self) -> Result<Vec<u8>, EncodeError> {
        let Connect { raw, parsed } = self.connect;
        let mut flags = parsed.flags & !(USERNAME | PASSWORD);
        flags |= if self.username.is_some() { USERNAME } else { 0 };
        flags |= if self.password.is_some() { PASSWORD } else { 0 };

        let mut body = Vec::with_capacity(raw.len() + 64);
        let name_at = parsed.flags_at - name_and_level_len(parsed.version);
        body.extend(Span::new(name_at, parsed.flags_at).bytes(raw));
        body.push(flags);
        // The keep-alive and the properties.
        let id_at = parsed.client_id.start() - LENGTH_LEN;
        body.extend(Span::new(parsed.flags_at + 1, id_at).bytes(raw));
        push_binary(&mut body, self.client_id.as_bytes(), Field::ClientId)?;
        if let Some(will) = parsed.will {
            body.extend(Span::new(parsed.client_id.end(), will.message.end()).bytes(raw));
        }
        if let Some(username) = self.username {
            push_binary(&mut body, username.as_bytes(), Field::Username)?;
        }
        if let Some(password) = self.password {
            push_binary(&mut body, password, Field::Password)?;
        }
        packet(FIRST_BYTE, &body)
    }
}

/// It does not show the password.
impl fmt::Debug for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change")
            .field("connect", &self.connect)
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("has_password", &self.password.is_some())
            .finish()
    }
}

/// The length in front of a string or of binary data.
const LENGTH_LEN: usize = 2;

/// The length of the protocol's name, with the length in front of it, and of the level.
const fn name_and_level_len(version: Version) -> usize {
    match version {
        Version::Mqtt31 => 9,
        Version::Mqtt311 | Version::Mqtt5 => 7,
    }
}
