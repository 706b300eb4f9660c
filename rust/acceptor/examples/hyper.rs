//! A hyper server behind a proxy. Try it:
//!
//! ```sh
//! cargo run --example hyper &
//! curl --haproxy-protocol http://127.0.0.1:7009/
//! ```

use std::convert::Infallible;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use proxyproto_acceptor::{Options, ProxyListener};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    // List only your own proxies here: a trusted peer can claim to speak for any client.
    let proxies = ["127.0.0.0/8".parse()?].into_iter().collect();
    let listener = ProxyListener::bind("127.0.0.1:7009", Options::default().trusted(proxies)).await?;
    loop {
        let (stream, client) = listener.accept().await?;
        let service = service_fn(move |_: Request<Incoming>| async move {
            let answer = Full::new(Bytes::from(format!("you are {client}\n")));
            Ok::<_, Infallible>(Response::new(answer))
        });
        tokio::spawn(async move {
            if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
                tracing::info!("{client}: {error}");
            }
        });
    }
}
