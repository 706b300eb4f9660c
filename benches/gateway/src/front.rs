//! Our relay, in a process of its own: one worker, and a thread that lets everybody in.

use std::io;
use std::sync::Arc;

use proxyproto_gateway::acceptor::{self, BindOptions, Listener, ProxyProtocol, Socket};
use proxyproto_gateway::{
    Admission, CertificateFiles, Event, Gateway, HeaderOut, ListenerOptions, Options, TlsOptions, TlsServer,
};
use tokio::runtime::Builder;

/// Serves until the process is ended; prints its address. With a certificate, clients speak TLS.
pub(crate) fn serve(server: &str, certificate: Option<&str>) -> io::Result<()> {
    let mut options = Options::default();
    options.workers = 1;
    options.upstream.servers = vec![server.parse().map_err(io::Error::other)?];
    options.upstream.header = HeaderOut::Off;
    let gateway = Gateway::start(options)?;
    let listening = acceptor::Options::default().proxy_protocol(ProxyProtocol::Off);
    let socket = Socket::bind("127.0.0.1:0".parse().map_err(io::Error::other)?, BindOptions::default())?;
    let address = socket.local_addr().to_string();
    let mut listener = ListenerOptions::new("tcp");
    if let Some(certificate) = certificate {
        let mut tls = TlsOptions::default();
        tls.certificate = Some(CertificateFiles { certfile: certificate.into(), keyfile: None });
        listener.channel = Some(Arc::new(TlsServer::new(&tls).map_err(io::Error::other)?));
    }
    gateway.serve(Arc::new(Listener::start(socket, listening)?), listener)?;
    println!("{address}");
    Builder::new_current_thread().build()?.block_on(async {
        while let Some(event) = gateway.next().await {
            if let Event::Login(login) = event {
                gateway.admit(login.token, Admission::default());
            }
        }
    });
    Ok(())
}
