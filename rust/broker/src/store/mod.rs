//! What survives the process: a file of redb in a directory of its own, and one thread that writes to it.
//!
//! Whoever needs to know that a change is on the disk waits for [`Written`]. The thread takes whatever has come in the meantime
//! into one transaction, so one fsync answers many. Changes for which nobody waits are written with the next that somebody
//! waits for, or [`LAZY`] later.
//!
//! It knows records as bytes: `records` says what is in them.

mod file;
pub(crate) use file::{OpenError, file_in};
mod tables;
pub(crate) use tables::{Change, Contents, Delivery};

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redb::Database;
use tokio::sync::oneshot;

/// A store that one process has to itself. Dropping it writes what waits.
#[derive(Debug)]
pub(crate) struct Store {
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Why something is not on the disk.
pub(crate) type WriteError = Arc<io::Error>;

/// Resolves when the changes are on the disk, or cannot be.
pub(crate) type Written = oneshot::Receiver<Result<(), WriteError>>;

struct Job {
    changes: Vec<Change>,
    answer: Option<oneshot::Sender<Result<(), WriteError>>>,
}

impl Store {
    /// Opens the store in `directory`, which is made if there is none, and reads all that is in it.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Contents), OpenError> {
        let database = file::open(directory)?;
        let contents = tables::read(&database).map_err(|error| OpenError::unreadable(directory, error))?;
        let (jobs, taken) = mpsc::channel();
        let writer = Writer { directory: directory.into(), database: Some(database), unanswered: Vec::new() };
        let thread = std::thread::Builder::new()
            .name("broker-store".into())
            .spawn(move || writer.run(&taken))
            .map_err(|error| OpenError::unreadable(directory, error.into()))?;
        let store = Self { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)) };
        Ok((store, contents))
    }

    /// Writes changes, in the order of calls.
    pub(crate) fn write(&self, changes: Vec<Change>) -> Written {
        let (answer, written) = oneshot::channel();
        self.send(Job { changes, answer: Some(answer) });
        written
    }

    /// Writes changes of which a crash may take the last. A write that fails is tried again.
    pub(crate) fn write_lazily(&self, changes: Vec<Change>) {
        self.send(Job { changes, answer: None });
    }

    /// Writes what waits, and takes nothing more.
    pub(crate) fn close(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }

    fn send(&self, job: Job) {
        // After the end the answer is dropped, which its receiver takes for an error.
        if let Some(jobs) = &*self.jobs.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// What [`Written`] says, and that a store that has closed has written nothing.
pub(crate) async fn until(written: Written) -> Result<(), WriteError> {
    written.await.unwrap_or_else(|_| Err(Arc::new(io::Error::other("the store is closed"))))
}

struct Writer {
    directory: PathBuf,
    /// `None` after an error: redb takes nothing more until the file is opened anew.
    database: Option<Database>,
    /// Changes that nobody waits for and that could not be written.
    unanswered: Vec<Change>,
}

impl Writer {
    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let (batch, is_last) = self.next_batch(jobs);
            self.write(batch);
            if is_last {
                return;
            }
        }
    }

    /// The jobs of the next transaction, and whether no more come.
    fn next_batch(&self, jobs: &Receiver<Job>) -> (Vec<Job>, bool) {
        let mut batch = Vec::new();
        // What failed is tried again even if nothing comes.
        let mut until = if self.unanswered.is_empty() { None } else { Some(Instant::now() + RETRY) };
        let mut size = 0;
        let mut is_awaited = false;
        while size < BATCH {
            let next = match until {
                _ if is_awaited => jobs.try_recv().map_err(|error| error == mpsc::TryRecvError::Disconnected),
                Some(until) => jobs
                    .recv_timeout(until.saturating_duration_since(Instant::now()))
                    .map_err(|error| error == RecvTimeoutError::Disconnected),
                None => jobs.recv().map_err(|_| true),
            };
            match next {
                Ok(job) => {
                    size += job.changes.iter().map(Change::size).sum::<usize>();
                    is_awaited |= job.answer.is_some();
                    if batch.is_empty() {
                        until = Some(Instant::now() + LAZY);
                    }
                    batch.push(job);
                }
                Err(is_last) => return (batch, is_last),
            }
        }
        (batch, false)
    }

    fn write(&mut self, batch: Vec<Job>) {
        let result = self.try_write(&batch).map_err(Arc::new);
        if result.is_ok() {
            self.unanswered.clear();
        } else {
            self.database = None;
        }
        for job in batch {
            match job.answer {
                Some(answer) => drop(answer.send(result.clone())),
                None if result.is_err() => self.unanswered.extend(job.changes),
                None => {}
            }
        }
        // A disk that stays full must not fill the memory. What is forgotten here is delivered once more, at worst.
        let excess = self.unanswered.len().saturating_sub(MOST_UNANSWERED);
        self.unanswered.drain(..excess);
    }

    fn try_write(&mut self, batch: &[Job]) -> io::Result<()> {
        let database = match self.database.take() {
            Some(database) => database,
            None => file::open(&self.directory).map_err(OpenError::into_io)?,
        };
        let changes = self.unanswered.iter().chain(batch.iter().flat_map(|job| &job.changes));
        tables::write(&database, changes).map_err(file::into_io)?;
        self.database = Some(database);
        Ok(())
    }
}

/// How long a change that nobody waits for may wait for others.
const LAZY: Duration = Duration::from_millis(100);
/// How long after an error what nobody waits for is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How many bytes one transaction takes, so that the first of them does not wait long.
const BATCH: usize = 4 << 20;
const MOST_UNANSWERED: usize = 100_000;
