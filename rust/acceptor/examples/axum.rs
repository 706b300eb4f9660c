//! An axum server behind a proxy. In your own crate, turn on the feature `axum`. Try it:
//!
//! ```sh
//! cargo run --example axum &
//! curl --haproxy-protocol http://127.0.0.1:7008/
//! ```

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use proxyproto_acceptor::{ClientInfo, Options, ProxyListener};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    // List only your own proxies here: a trusted peer can claim to speak for any client.
    let proxies = ["127.0.0.0/8".parse()?].into_iter().collect();
    let listener = ProxyListener::bind("127.0.0.1:7008", Options::default().trusted(proxies)).await?;
    let app = Router::new().route("/", get(who_am_i));
    axum::serve(listener, app.into_make_service_with_connect_info::<ClientInfo>())
        .with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) })
        .await?;
    Ok(())
}

async fn who_am_i(ConnectInfo(info): ConnectInfo<ClientInfo>) -> String {
    let host = info.header.as_ref().and_then(|header| header.authority()).unwrap_or("no host name");
    format!("you are {}, through {}, for {host}\n", info.client, info.peer)
}
