//! The threads that serve the connections. Each has its own runtime, and a connection stays on its thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use proxyproto_acceptor::{BlockedSignals, RuntimeDescriptors};
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

use crate::fork;

/// The threads of a gateway. Dropping them ends them, and closes what they serve.
#[derive(Debug)]
pub(crate) struct Workers {
    seats: Arc<Seats>,
    threads: Vec<JoinHandle<()>>,
    /// Dropping it tells the threads to end.
    running: Option<watch::Sender<()>>,
}

/// The workers, as tasks and connections are given to them.
#[derive(Debug)]
pub(crate) struct Seats {
    workers: Box<[Worker]>,
    turn: AtomicUsize,
    process: u32,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    descriptors: RuntimeDescriptors,
    connections: Arc<AtomicUsize>,
}

/// A connection's place on a worker. Drop it when the connection has ended.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) worker: usize,
    connections: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts so many threads; 0 means one for each core.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let count = match count {
            0 => thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let (running, ended) = watch::channel(());
        // The program handles signals, perhaps in a thread of its own.
        let _blocked = BlockedSignals::new();
        let mut started = Self { seats: Seats::new(Vec::new()), threads: Vec::new(), running: Some(running) };
        let mut workers = Vec::with_capacity(count);
        for index in 0..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            workers.push(Worker {
                runtime: runtime.handle().clone(),
                descriptors: RuntimeDescriptors::of(runtime.handle())?,
                connections: Arc::default(),
            });
            let mut ended = ended.clone();
            let name = format!("proxyproto-gw-{index}");
            started.threads.push(thread::Builder::new().name(name).spawn(move || {
                // An error says that the sender has gone, which is what is waited for.
                let _ = runtime.block_on(ended.changed());
            })?);
        }
        started.seats = Seats::new(workers);
        fork::remember(&started.seats);
        Ok(started)
    }

    pub(crate) fn seats(&self) -> &Arc<Seats> {
        &self.seats
    }

    /// Ends the threads, and waits for them.
    pub(crate) fn stop(&mut self) {
        drop(self.running.take());
        for thread in self.threads.drain(..) {
            // An error is a panic of the runtime's, which has been said.
            let _ = thread.join();
        }
    }

    /// Forgets the threads in a forked child. They do not run there, and joining them would hang.
    pub(crate) fn forget(&mut self) {
        std::mem::forget((self.running.take(), std::mem::take(&mut self.threads)));
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Seats {
    fn new(workers: Vec<Worker>) -> Arc<Self> {
        Arc::new(Self { workers: workers.into(), turn: AtomicUsize::new(0), process: std::process::id() })
    }

    /// Whether the threads are here, and not in the parent of a forked child.
    pub(crate) fn are_of_this_process(&self) -> bool {
        self.process == std::process::id()
    }

    /// The runtime of each worker, and what it has open.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Handle, &RuntimeDescriptors)> {
        self.workers.iter().map(|worker| (&worker.runtime, &worker.descriptors))
    }

    pub(crate) fn count(&self) -> usize {
        self.workers.len()
    }

    /// The runtime for a task that is no connection. `which` spreads the tasks over the workers.
    pub(crate) fn runtime(&self, which: usize) -> Option<&Handle> {
        Some(&self.workers.get(which % self.workers.len().max(1))?.runtime)
    }

    /// A place on the worker with the fewest connections. Workers with equally few take turns.
    pub(crate) fn take(&self) -> Option<(Seat, &Handle)> {
        let count = self.workers.len();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let order = (0..count).map(|step| (turn + step) % count);
        let index = order.min_by_key(|index| self.workers.get(*index).map(Worker::load))?;
        let worker = self.workers.get(index)?;
        worker.connections.fetch_add(1, Ordering::Relaxed);
        Some((Seat { worker: index, connections: Arc::clone(&worker.connections) }, &worker.runtime))
    }

    /// The number of connections of each worker.
    pub(crate) fn loads(&self) -> Vec<usize> {
        self.workers.iter().map(Worker::load).collect()
    }
}

impl Worker {
    fn load(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
