//! Many publishers and one subscriber, or one publisher and many subscribers, at the pace of the slowest subscriber: brokers
//! drop what a subscriber does not take in time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::clients::{connect, expect};
use crate::packets;

/// Who publishes what, and who takes it.
#[derive(Clone, Copy)]
pub(crate) struct Fan {
    pub(crate) publishers: usize,
    pub(crate) subscribers: usize,
    /// 0 or 1.
    pub(crate) qos: u8,
}

/// How many messages a subscriber may be behind. Brokers keep 1000 for each.
const BEHIND: usize = 256;
/// How many PUBLISH a publisher sends without a PUBACK. Brokers take 20 and more.
const WITHOUT_ACK: usize = 16;
/// A measurement that takes so long has lost a message.
const LIMIT: Duration = Duration::from_mins(1);
const SIZE: usize = 64;

#[derive(Default)]
struct Progress {
    sent: AtomicUsize,
    received: Vec<AtomicUsize>,
    moved: Notify,
}

impl Progress {
    /// How many may be published now; they count as sent.
    fn claim(&self, most: usize) -> usize {
        let slowest = self.received.iter().map(|count| count.load(Ordering::Relaxed)).min().unwrap_or(0);
        let sent = self.sent.load(Ordering::Relaxed);
        let free = most.min((slowest + BEHIND).saturating_sub(sent));
        self.sent.fetch_add(free, Ordering::Relaxed);
        free
    }
}

impl Fan {
    /// Publishes so many messages, and gives how many arrived in a second.
    pub(crate) async fn rate(self, broker: SocketAddr, messages: usize) -> io::Result<f64> {
        let each = messages / self.publishers;
        let all = each * self.publishers;
        let progress = Arc::new(Progress {
            received: (0..self.subscribers).map(|_| AtomicUsize::new(0)).collect(),
            ..Progress::default()
        });
        let mut tasks = JoinSet::new();
        for number in 0..self.subscribers {
            let mut session = connect(broker, &format!("subscriber-{number}")).await?;
            session.write_all(&packets::subscribe(self.qos)).await?;
            expect(&mut session, &packets::suback(self.qos)).await?;
            tasks.spawn(take(session, self.qos, all, number, Arc::clone(&progress)));
        }
        let mut publishers = Vec::new();
        for number in 0..self.publishers {
            publishers.push(connect(broker, &format!("publisher-{number}")).await?);
        }
        let since = Instant::now();
        for session in publishers {
            tasks.spawn(give(session, self.qos, each, Arc::clone(&progress)));
        }
        let done = async {
            while let Some(task) = tasks.join_next().await {
                task.map_err(io::Error::other)??;
            }
            Ok::<_, io::Error>(())
        };
        let lost = |_| io::Error::other("a message was lost, or took a minute");
        tokio::time::timeout(LIMIT, done).await.map_err(lost)??;
        #[expect(clippy::cast_precision_loss, reason = "a few millions")]
        Ok((all * self.subscribers) as f64 / since.elapsed().as_secs_f64())
    }
}

async fn give(session: TcpStream, qos: u8, count: usize, progress: Arc<Progress>) -> io::Result<()> {
    let (mut reader, mut writer) = session.into_split();
    let (mut sent, mut acknowledged) = (0, 0);
    let mut bytes = Vec::new();
    let mut acks = vec![0; 4096];
    let mut rest = 0;
    while acknowledged < count {
        let most = (count - sent).min(if qos == 0 { 64 } else { WITHOUT_ACK - (sent - acknowledged) });
        let moved = progress.moved.notified();
        tokio::pin!(moved);
        moved.as_mut().enable();
        let free = progress.claim(most);
        if free > 0 {
            bytes.clear();
            for _ in 0..free {
                sent += 1;
                bytes.extend(packets::publish_with(SIZE, qos, packet_id(sent)));
            }
            writer.write_all(&bytes).await?;
        }
        if qos == 0 {
            acknowledged = sent;
            if free == 0 {
                moved.await;
            }
        } else if sent > acknowledged {
            let length = some(&mut reader, &mut acks).await? + rest;
            acknowledged += length / ACK_LENGTH;
            rest = length % ACK_LENGTH;
        } else if free == 0 {
            moved.await;
        }
    }
    // Its end must not overtake its messages.
    expect_ping(&mut reader, &mut writer).await
}

async fn take(
    mut session: TcpStream,
    qos: u8,
    count: usize,
    number: usize,
    progress: Arc<Progress>,
) -> io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    let (mut filled, mut received) = (0, 0);
    let mut acks = Vec::new();
    while received < count {
        let length = session.read(&mut bytes[filled..]).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += length;
        let whole = filled / SIZE;
        acks.clear();
        for packet in bytes[..whole * SIZE].chunks_exact(SIZE) {
            if packet[0] & 0xf7 != 0x30 | qos << 1 {
                return Err(io::Error::other(format!("got {}", packet.escape_ascii())));
            }
            if qos > 0 {
                acks.extend(packets::puback(packet));
            }
        }
        session.write_all(&acks).await?;
        bytes.copy_within(whole * SIZE..filled, 0);
        filled -= whole * SIZE;
        received += whole;
        progress.received[number].store(received, Ordering::Relaxed);
        progress.moved.notify_waiters();
    }
    Ok(())
}

async fn expect_ping(
    reader: &mut OwnedReadHalf,
    writer: &mut tokio::net::tcp::OwnedWriteHalf,
) -> io::Result<()> {
    writer.write_all(packets::PINGREQ).await?;
    expect(reader, packets::PINGRESP).await
}

async fn some(reader: &mut OwnedReadHalf, bytes: &mut [u8]) -> io::Result<usize> {
    match reader.read(bytes).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => Ok(length),
    }
}

fn packet_id(number: usize) -> u16 {
    u16::try_from(number % usize::from(u16::MAX)).unwrap_or(0) + 1
}

const ACK_LENGTH: usize = 4;
