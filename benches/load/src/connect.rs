//! Clients: connect, say header and request in one segment, wait for the reply and for the end.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{Domain, Protocol, Socket, Type};

use crate::header::{Kind, REPLY, opening};

struct Client {
    socket: Socket,
    started: Instant,
    received: usize,
}

/// Prints how it went, in one line of JSON.
pub(crate) fn run(address: SocketAddr, kind: Kind, connections: u32, concurrency: u32) -> io::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut clients: Vec<Option<Client>> = (0..concurrency).map(|_| None).collect();
    let mut latencies = Vec::new();
    let mut errors = 0_u32;
    let start = Instant::now();
    let mut begun = 0;
    for slot in 0..concurrency.min(connections) {
        clients[slot as usize] = Some(begin(&epoll, slot, address, kind, begun)?);
        begun += 1;
    }
    let mut done = 0;
    let mut events = Vec::with_capacity(256);
    while done < connections {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let data = event.data;
            let slot = u32::try_from(data.u64()).unwrap_or_default();
            let Some(client) = &mut clients[slot as usize] else { continue };
            match read(client) {
                Progress::Waiting => continue,
                Progress::Done if client.received == REPLY.len() => latencies.push(client.started.elapsed()),
                Progress::Done | Progress::Failed => errors += 1,
            }
            done += 1;
            clients[slot as usize] = None;
            if begun < connections {
                clients[slot as usize] = Some(begin(&epoll, slot, address, kind, begun)?);
                begun += 1;
            }
        }
    }
    report(connections, errors, start.elapsed(), latencies);
    Ok(())
}

fn begin(epoll: impl AsFd, slot: u32, address: SocketAddr, kind: Kind, number: u32) -> io::Result<Client> {
    let started = Instant::now();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // The server closes first. A reset from us then leaves neither side in TIME_WAIT.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect(&address.into())?;
    send(&socket, &opening(kind, number), SendFlags::empty())?;
    let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
    epoll::add(epoll, &socket, epoll::EventData::new_u64(slot.into()), flags)?;
    Ok(Client { socket, started, received: 0 })
}

enum Progress {
    Waiting,
    Done,
    Failed,
}

fn read(client: &mut Client) -> Progress {
    let mut buffer = [0; 64];
    loop {
        match recv(&client.socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Progress::Done,
            Ok((_, count)) => client.received += count,
            Err(Errno::AGAIN) => return Progress::Waiting,
            Err(_) => return Progress::Failed,
        }
    }
}

fn report(connections: u32, errors: u32, took: Duration, mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let percentile = |percent: usize| {
        let index = latencies.len().saturating_sub(1) * percent / 100;
        latencies.get(index).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e6)
    };
    println!(
        "{{\"connections\": {connections}, \"errors\": {errors}, \"seconds\": {:.6}, \"p50_us\": {:.1}, \"p99_us\": {:.1}}}",
        took.as_secs_f64(),
        percentile(50),
        percentile(99),
    );
}
