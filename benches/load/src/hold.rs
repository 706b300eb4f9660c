//! Connections on which nothing is said.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// Fewer than the ports that the kernel gives out for one address.
const PER_SOURCE: u32 = 4000;

pub(crate) fn run(address: SocketAddr, connections: u32) -> io::Result<()> {
    let mut held = Vec::new();
    for number in 0..connections {
        let source = Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 0, 2).to_bits() + number / PER_SOURCE);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.connect(&address.into())?;
        held.push(socket);
    }
    println!("holding");
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
