//! The load generator and the limit server of `benches/accept.py` and `benches/memory.py`, which say what they want in
//! arguments and read what comes out.

mod connect;
mod header;
mod hold;
mod serve;

use std::net::SocketAddr;
use std::process::ExitCode;

use header::Kind;

const USAGE: &str = "\
load connect ADDRESS none|v1|v2 CONNECTIONS CONCURRENCY
    opens so many connections, so many at a time: header and request, reply, end; prints one line of JSON
load hold ADDRESS CONNECTIONS
    opens connections from several addresses, says nothing on them, prints \"holding\", and waits for its input to end
load serve none|v1|v2 deferred|eager
    answers requests from one thread, with epoll, with or without deferred accept; prints its address";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["connect", address, kind, connections, concurrency] => {
            match (parse::<SocketAddr>(address), Kind::of(kind), parse(connections), parse(concurrency)) {
                (Some(address), Some(kind), Some(connections), Some(concurrency)) => {
                    connect::run(address, kind, connections, concurrency)
                }
                _ => return usage(),
            }
        }
        ["hold", address, connections] => match (parse(address), parse(connections)) {
            (Some(address), Some(connections)) => hold::run(address, connections),
            _ => return usage(),
        },
        ["serve", kind, accept @ ("deferred" | "eager")] => match Kind::of(kind) {
            Some(kind) => serve::run(kind, accept == "deferred"),
            None => return usage(),
        },
        _ => return usage(),
    };
    if let Err(error) = done {
        eprintln!("load: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn parse<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
