//! A front that lets everybody in who is not on a list, and leaves passwords to the broker behind it:
//!
//! ```text
//! cargo run --example gateway -- 0.0.0.0:1883 10.0.1.5:1883 mallory 203.0.113.0/24
//! ```
//!
//! listens on port 1883 for clients without a PROXY header, sends them to 10.0.1.5 with one, and refuses the user mallory
//! and everybody from 203.0.113.0/24. Ctrl-C ends the sessions within five seconds.

use std::sync::Arc;
use std::time::Duration;

use proxyproto_gateway::acceptor::{self, AddressSet, BindOptions, Listener, ProxyProtocol, Socket};
use proxyproto_gateway::mqtt::Reason;
use proxyproto_gateway::{Admission, Event, Gateway, ListenerOptions, Login, Options};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(bind), Some(server)) = (arguments.next(), arguments.next()) else {
        return Err("gateway ADDRESS SERVER [USER | NETWORK]...".into());
    };
    let (networks, users): (Vec<_>, Vec<_>) =
        arguments.partition(|name| name.parse::<acceptor::Network>().is_ok());
    let networks: AddressSet = networks.iter().map(|network| network.parse()).collect::<Result<_, _>>()?;

    let mut options = Options::default();
    options.upstream.servers = vec![server.parse()?];
    let gateway = Gateway::start(options)?;

    // Networks are refused before one byte of MQTT is read.
    let listening = acceptor::Options::default().proxy_protocol(ProxyProtocol::Off).deny(networks);
    let listener =
        Arc::new(Listener::start(Socket::bind(bind.parse()?, BindOptions::default())?, listening)?);
    gateway.serve(Arc::clone(&listener), ListenerOptions::new("tcp"))?;

    let mut ctrl_c = std::pin::pin!(tokio::signal::ctrl_c());
    let mut is_draining = false;
    loop {
        tokio::select! {
            event = gateway.next() => match event {
                Some(event) => tell(&gateway, &users, event),
                None => return Ok(()),
            },
            signal = &mut ctrl_c, if !is_draining => {
                signal?;
                is_draining = true;
                listener.drain()?;
                gateway.drain(Duration::from_secs(5));
            }
        }
        if is_draining && gateway.stats().sessions == 0 {
            return Ok(());
        }
    }
}

fn tell(gateway: &Gateway, users: &[String], event: Event) {
    match event {
        Event::Login(Login { token, connect, .. }) => {
            if connect.username().is_some_and(|user| users.iter().any(|other| other == user)) {
                gateway.refuse(token, Reason::AccessDenied, "on the list");
            } else {
                gateway.admit(token, Admission::default());
            }
        }
        other => println!("{other:?}"),
    }
}
