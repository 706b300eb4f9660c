//! Opens a connection to a server, up to the CONNECT.

use std::io;

use tokio::time::timeout;

use super::connect::no_answer;
use crate::channel::{Remote, Stage};
use crate::options::UpstreamOptions;
use crate::server_name::ServerName;
use crate::wire::{Socket, Wire, WireError};

/// A connection to a server that has been sent its header and a CONNECT.
pub(crate) struct Link {
    pub(crate) wire: Wire,
    /// Bytes that the server has sent already.
    pub(crate) received: Vec<u8>,
}

/// Sends header and CONNECT, through the channel if there is one.
///
/// Both go in one write: Mosquitto 2.1 mishandles a split header, and rmqtt peeks once.
pub(crate) async fn open(
    socket: Socket,
    server: &ServerName,
    options: &UpstreamOptions,
    header: &[u8],
    connect: &[u8],
) -> Result<Link, WireError> {
    let opened = async {
        let Some(factory) = &options.channel else {
            let mut wire = Wire::new(socket, None);
            wire.send_all(&[header, connect].concat()).await?;
            return Ok(Link { wire, received: Vec::new() });
        };
        let mut wire = Wire::new(socket, Some(factory.open(Remote::Server(server))));
        let mut received = Vec::new();
        wire.send_first(header).await?;
        while wire.stage() != Stage::Open {
            if !wire.receive(&mut received, usize::MAX).await? {
                return Err(closed());
            }
        }
        wire.send_all(connect).await?;
        Ok(Link { wire, received })
    };
    timeout(options.connect_timeout, opened)
        .await
        .map_err(|_| WireError::Io(no_answer(options.connect_timeout)))?
}

/// The server has closed the connection before its CONNACK.
pub(crate) fn closed() -> WireError {
    WireError::Io(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer to the CONNECT"))
}
