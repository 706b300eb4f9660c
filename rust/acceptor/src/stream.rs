//! The listener as a stream of connections (feature `stream`).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::proxied_stream::ProxiedStream;
use crate::proxy_listener::{ProxyListener, is_end};

/// The connections that [`ProxyListener::accept`] returns. The stream ends when the listener is drained and empty.
impl Stream for ProxyListener {
    type Item = io::Result<(ProxiedStream, SocketAddr)>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_accept(cx).map(|accepted| match accepted {
            Err(error) if is_end(&error) => None,
            accepted => Some(accepted),
        })
    }
}
