//! [`axum::serve()`] takes the listener, and its handlers learn the client (feature `axum`).

use std::future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use proxyproto_codec::Header;

use crate::addresses::PeerAddr;
use crate::proxied_stream::ProxiedStream;
use crate::proxy_listener::ProxyListener;

/// When the listener is drained and empty, `accept` waits for ever. To end [`axum::serve()`], use its graceful shutdown.
impl Listener for ProxyListener {
    type Io = ProxiedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (ProxiedStream, SocketAddr) {
        match Self::accept(self).await {
            Ok(accepted) => accepted,
            Err(_) => future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }
}

/// The client of a request and the proxy that names it.
///
/// Make the service with `into_make_service_with_connect_info::<ClientInfo>()`, and take `ConnectInfo<ClientInfo>` in handlers.
///
/// Handlers that take a `ConnectInfo<SocketAddr>` need no change to see the client: serve `listener.tap_io(|_| {})`
/// ([`ListenerExt`](axum::serve::ListenerExt)).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientInfo {
    /// The client: see [`ProxiedStream::client_addr`].
    pub client: SocketAddr,
    /// The other end of the connection: the proxy, or a client that is served directly.
    pub peer: PeerAddr,
    /// The header; `None` for a connection that is served without one.
    pub header: Option<Arc<Header>>,
}

impl Connected<IncomingStream<'_, ProxyListener>> for ClientInfo {
    fn connect_info(stream: IncomingStream<'_, ProxyListener>) -> Self {
        let stream = stream.io();
        Self {
            client: stream.client_addr(),
            peer: stream.peer_addr().clone(),
            header: stream.header().cloned().map(Arc::new),
        }
    }
}
