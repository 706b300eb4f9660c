//! A relay between two scripted ends, on a clock that stands still until everybody waits.

use std::future::poll_fn;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::events::Token;
use crate::options::{ListenerOptions, PublishRate};
use crate::wire::Socket;

const PINGREQ: &[u8] = b"\xc0\0";
const DISCONNECT: &[u8] = b"\xe0\0";

struct Rig {
    client: UnixStream,
    server: UnixStream,
    over: JoinHandle<Ending>,
    handle: Arc<Handle>,
    start: Instant,
}

impl Rig {
    fn new(version: Version, keep_alive: u16, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::default();
        change(&mut options);
        let [(client, near), (server, far)] = [UnixStream::pair().unwrap(), UnixStream::pair().unwrap()];
        let handle = Arc::new(Handle::new(Token::new(1)));
        let start = Instant::now();
        let mut relay = Relay::new(Beginning {
            handle: Arc::clone(&handle),
            listening: Arc::new(Listening::new(ListenerOptions::new("test"), 1)),
            worker: 0,
            options: Arc::new(options),
            client: Wire::new(Socket::Unix(near), None),
            server: Wire::new(Socket::Unix(far), None),
            early: Vec::new(),
            behind: Vec::new(),
            version,
            keep_alive,
            start,
        });
        let over = tokio::spawn(async move {
            poll_fn(|cx| relay.poll(cx)).await;
            // Both connections are closed with the rest of it.
            relay.into_over().ending
        });
        Self { client, server, over, handle, start }
    }

    /// Why the session ends, and after which time.
    async fn over(self) -> (&'static str, Duration) {
        let ending = timeout(Duration::from_secs(100_000), self.over).await.expect("an end").unwrap();
        (ending.cause.code(), self.start.elapsed())
    }
}

async fn expect(peer: &mut UnixStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    peer.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes.escape_ascii().to_string(), expected.escape_ascii().to_string());
}

/// A PUBLISH with a topic of one letter, in 3.1.1.
fn publish(message: &[u8]) -> Vec<u8> {
    assert!(message.len() < 125);
    [&[0x30, 3 + u8::try_from(message.len()).unwrap(), 0, 1, b't'], message].concat()
}

fn about(seconds: f64, (code, after): (&'static str, Duration), expected: &str) {
    assert_eq!(code, expected);
    let late = after.as_secs_f64() - seconds;
    // A timer of tokio's fires up to a millisecond late.
    assert!((0.0..0.01).contains(&late), "{code} after {after:?}, not {seconds}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_ended_after_one_and_a_half_keep_alives() {
    let rig = Rig::new(Version::Mqtt311, 60, |_| {});
    about(90.0, rig.over().await, "keep-alive");

    let mut rig = Rig::new(Version::Mqtt311, 60, |_| {});
    for _ in 0..5 {
        sleep(Duration::from_secs(80)).await;
        rig.client.write_all(PINGREQ).await.unwrap();
        expect(&mut rig.server, PINGREQ).await;
    }
    about(490.0, rig.over().await, "keep-alive");

    let mut rig = Rig::new(Version::Mqtt311, 0, |_| {});
    assert!(
        timeout(Duration::from_secs(90_000), &mut rig.over).await.is_err(),
        "without one it may be silent"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_server_sends_is_no_sign_of_the_client() {
    let mut rig = Rig::new(Version::Mqtt311, 10, |_| {});
    sleep(Duration::from_secs(10)).await;
    rig.server.write_all(b"\xd0\0").await.unwrap();
    expect(&mut rig.client, b"\xd0\0").await;
    about(15.0, rig.over().await, "keep-alive");
}

#[tokio::test(start_paused = true)]
async fn a_client_from_which_nothing_is_read_is_not_silent() {
    let mut rig = Rig::new(Version::Mqtt311, 10, |_| {});
    let message = publish(&[7; 100]).repeat(1000);
    let mut sent = 0;
    // Until the server, which does not read, has all that the kernel takes, and the relay no more.
    while let Ok(Ok(())) = timeout(Duration::from_millis(10), rig.client.write_all(&message)).await {
        sent += message.len();
        assert!(sent < 100_000_000);
    }
    sleep(Duration::from_secs(100)).await;
    assert!(!rig.over.is_finished());
    let mut taken = vec![0; sent];
    rig.server.read_exact(&mut taken).await.unwrap();
    // From here on it counts.
    let read = rig.start.elapsed().as_secs_f64();
    let (code, after) = rig.over().await;
    assert_eq!(code, "keep-alive");
    assert!(after.as_secs_f64() - read < 16.0);
}

#[tokio::test(start_paused = true)]
async fn a_packet_has_its_time_from_its_first_byte_to_its_last() {
    let message = publish(b"0123456789");
    let mut rig = Rig::new(Version::Mqtt311, 0, |_| {});
    for piece in message.chunks(5) {
        sleep(Duration::from_secs(9)).await;
        rig.client.write_all(piece).await.unwrap();
        expect(&mut rig.server, piece).await;
    }
    sleep(Duration::from_secs(1000)).await;
    rig.client.write_all(&message[..14]).await.unwrap();
    expect(&mut rig.server, &message[..14]).await;
    about(9.0 * 3.0 + 1030.0, rig.over().await, "packet-timeout");
}

#[tokio::test(start_paused = true)]
async fn a_publish_waits_half_the_keep_alive_at_most_and_a_ping_not_at_all() {
    let rate = PublishRate { count: 1, per: Duration::from_secs(1000) };
    for strict in [false, true] {
        let mut rig = Rig::new(Version::Mqtt311, 60, |options| {
            options.mqtt.publish = vec![rate];
            options.mqtt.strict = strict;
        });
        let messages: Vec<_> = (0..4).map(|number| publish(&[number; 10])).collect();
        rig.client.write_all(&[&messages.concat()[..], PINGREQ].concat()).await.unwrap();
        expect(&mut rig.server, &messages[0]).await;
        expect(&mut rig.server, PINGREQ).await;
        for (number, message) in (1..).zip(&messages[1..]) {
            expect(&mut rig.server, message).await;
            about(30.0 * f64::from(number), ("", rig.start.elapsed()), "");
        }
        // Without a keep-alive the rate alone counts.
        let mut rig = Rig::new(Version::Mqtt311, 0, |options| options.mqtt.publish = vec![rate]);
        rig.client.write_all(&messages[..2].concat()).await.unwrap();
        expect(&mut rig.server, &messages[..2].concat()).await;
        about(1000.0, ("", rig.start.elapsed()), "");
    }
}

#[tokio::test(start_paused = true)]
async fn after_its_goodbye_nobody_waits_long_for_a_server_that_does_not_close() {
    let mut rig = Rig::new(Version::Mqtt311, 60, |_| {});
    rig.client.write_all(DISCONNECT).await.unwrap();
    expect(&mut rig.server, DISCONNECT).await;
    about(5.0, rig.over().await, "disconnect");
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_client_is_heard_no_more_and_served_as_long_as_something_comes() {
    let mut rig = Rig::new(Version::Mqtt311, 0, |_| {});
    rig.client.shutdown().await.unwrap();
    assert_eq!(rig.server.read(&mut [0]).await.unwrap(), 0);
    for _ in 0..100 {
        sleep(Duration::from_secs(29)).await;
        rig.server.write_all(&publish(b"still")).await.unwrap();
        expect(&mut rig.client, &publish(b"still")).await;
    }
    drop(rig.server);
    assert_eq!(rig.over.await.unwrap().cause.code(), "connection-lost");
    assert_eq!(rig.client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_client_does_not_wait_for_ever_for_a_server_that_does_not_close() {
    let mut rig = Rig::new(Version::Mqtt311, 0, |_| {});
    rig.client.write_all(PINGREQ).await.unwrap();
    rig.client.shutdown().await.unwrap();
    expect(&mut rig.server, PINGREQ).await;
    assert_eq!(rig.server.read(&mut [0]).await.unwrap(), 0);
    about(30.0, rig.over().await, "connection-lost");
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_must_wait_goes_on_after_its_client_has_closed() {
    let rate = PublishRate { count: 1, per: Duration::from_secs(100) };
    let mut rig = Rig::new(Version::Mqtt311, 0, |options| options.mqtt.publish = vec![rate]);
    rig.client.write_all(&publish(b"m").repeat(3)).await.unwrap();
    rig.client.shutdown().await.unwrap();
    expect(&mut rig.server, &publish(b"m").repeat(3)).await;
    about(200.0, ("", rig.start.elapsed()), "");
    assert_eq!(rig.server.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_packet_on_its_way_holds_the_farewell_up_for_two_seconds_at_most() {
    let mut rig = Rig::new(Version::Mqtt5, 0, |_| {});
    rig.server.write_all(b"\x30\x20\0").await.unwrap();
    expect(&mut rig.client, b"\x30\x20\0").await;
    let ending = Ending { cause: Reason::Blocked.into(), detail: String::new() };
    rig.handle.end(ending.clone());
    rig.handle.end(Ending { cause: Cause::SlowConsumer, ..ending });
    about(2.0, rig.over().await, "blocked");
}

/// Sends until nothing more is taken: what the kernel has is the client's to read. Gives how much that is.
async fn fill(rig: &mut Rig) -> usize {
    let message = publish(&[7; 100]).repeat(100);
    let mut sent = 0;
    while let Ok(Ok(())) = timeout(Duration::from_millis(1), rig.server.write_all(&message)).await {
        sent += message.len();
        assert!(sent < 100_000_000);
    }
    sent
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_slow_and_one_that_takes_enough_is_not() {
    let seconds = Duration::from_secs(20);
    let change = |options: &mut Options| options.mqtt.send_timeout = seconds;
    let mut rig = Rig::new(Version::Mqtt5, 0, change);
    fill(&mut rig).await;
    about(seconds.as_secs_f64(), rig.over().await, "slow-consumer");

    // It takes a little each time: never nothing, and never more than 1 MiB waits.
    let mut rig = Rig::new(Version::Mqtt5, 0, change);
    fill(&mut rig).await;
    for _ in 0..10 {
        sleep(seconds / 2).await;
        // The kernel counts the bytes of a UNIX socket by its buffers, each of 32 KiB or so.
        let mut piece = vec![0; 70_000];
        rig.client.read_exact(&mut piece).await.unwrap();
        fill(&mut rig).await;
        assert!(!rig.over.is_finished());
    }

    // The same with a limit below what waits.
    let mut rig = Rig::new(Version::Mqtt5, 0, |options| {
        change(options);
        options.mqtt.max_send_buffer = 1000;
    });
    fill(&mut rig).await;
    let mut piece = vec![0; 2000];
    rig.client.read_exact(&mut piece).await.unwrap();
    assert_eq!(rig.over().await.0, "slow-consumer");
}

#[tokio::test(start_paused = true)]
async fn a_strict_relay_passes_whole_packets_alone() {
    let good = publish(b"good");
    // A wildcard in the topic, an empty topic, an acknowledgement without an id.
    let table: [(&[u8], &str); 3] = [
        (b"\x30\x03\0\x01#", "bad-topic"),
        (b"\x30\x02\0\0", "malformed-packet"),
        (b"\x40\x02\0\0", "malformed-packet"),
    ];
    for (bad, code) in table {
        for split in 0..good.len() {
            let mut rig = Rig::new(Version::Mqtt311, 0, |options| options.mqtt.strict = true);
            let bytes = [&good[..], &good, bad, &good].concat();
            rig.client.write_all(&bytes[..good.len() + split]).await.unwrap();
            expect(&mut rig.server, &good).await;
            let more = timeout(Duration::from_millis(10), rig.server.read(&mut [0])).await;
            assert!(more.is_err(), "a part of a packet");
            for byte in &bytes[good.len() + split..] {
                rig.client.write_all(&[*byte]).await.unwrap();
            }
            let mut rest = Vec::new();
            rig.server.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, good);
            assert_eq!(rig.over().await.0, code);
        }
    }
    let mut rig = Rig::new(Version::Mqtt311, 0, |options| options.mqtt.strict = true);
    rig.client.write_all(&good[..3]).await.unwrap();
    about(30.0, rig.over().await, "packet-timeout");
}
