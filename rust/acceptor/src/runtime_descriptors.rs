//! The descriptors of a tokio runtime. tokio does not name them, so they are looked up in /proc.

use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::makedev;
use tokio::runtime::Handle;

use crate::sys;

/// The epoll sets of a runtime, by which a forked child finds all that the runtime has open.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct RuntimeDescriptors {
    /// tokio has duplicates of its set.
    epolls: Vec<RawFd>,
}

/// What a runtime had open when the process forked.
#[doc(hidden)]
#[derive(Debug)]
pub struct InheritedDescriptors(Vec<Inherited>);

#[derive(Debug)]
struct Inherited {
    number: RawFd,
    /// The file that it must be of; `None` if nobody can have closed it.
    file: Option<FileId>,
}

/// Device and inode.
type FileId = (u64, u64);

impl RuntimeDescriptors {
    /// Those of this runtime.
    ///
    /// # Errors
    ///
    /// There is no descriptor left.
    pub fn of(runtime: &Handle) -> io::Result<Self> {
        let marker = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let number = marker.as_raw_fd();
        let _runtime = runtime.enter();
        let _watched = sys::register_readable(marker)?;
        let mut epolls = descriptors_of_kind("anon_inode:[eventpoll]");
        epolls.retain(|epoll| watched_by(*epoll).contains(&number));
        Ok(Self { epolls })
    }

    /// All that the runtime watches now, and its epoll sets. Its thread must be at rest until the process has forked: a
    /// number may be that of another file as soon as its owner has closed it.
    #[must_use]
    pub fn now(&self) -> InheritedDescriptors {
        let watched = self.epolls.first().map(|epoll| watched_by(*epoll)).unwrap_or_default();
        let all = watched.into_iter().chain(self.epolls.iter().copied());
        InheritedDescriptors(all.map(|number| Inherited { number, file: None }).collect())
    }

    /// As [`now`](Self::now), but its threads go on. What they open from now on, a forked child keeps.
    #[must_use]
    pub fn now_at_work(&self) -> InheritedDescriptors {
        let watched = self.epolls.first().map(|epoll| files_watched_by(*epoll)).unwrap_or_default();
        let watched = watched.into_iter().map(|(number, file)| Inherited { number, file: Some(file) });
        let sets = self.epolls.iter().map(|number| Inherited { number: *number, file: None });
        InheritedDescriptors(watched.chain(sets).collect())
    }
}

impl InheritedDescriptors {
    /// Adds those of this file, and with them its locks.
    #[must_use]
    pub fn with_file(mut self, path: &Path) -> Self {
        let Ok(file) = fs::metadata(path).map(|found| id_of(&found)) else { return self };
        let numbers = open_descriptors().into_iter().filter(|number| file_of(*number) == Some(file));
        self.0.extend(numbers.map(|number| Inherited { number, file: Some(file) }));
        self
    }

    /// Closes the copies of a forked child. Nothing there may run or drop what has owned them: the tasks of the runtime.
    pub fn close_in_child(self) {
        for Inherited { number, file } in self.0 {
            // A thread at work may have closed it before the fork, and the number may be another file's.
            if file.is_none_or(|file| file_of(number) == Some(file)) {
                sys::close_inherited(number);
            }
        }
    }
}

/// The open descriptors that the kernel describes by `kind`.
pub(crate) fn descriptors_of_kind(kind: &str) -> Vec<RawFd> {
    let is_of_kind =
        |number: &RawFd| fs::read_link(path_of(*number)).is_ok_and(|target| target.as_os_str() == kind);
    open_descriptors().into_iter().filter(is_of_kind).collect()
}

fn open_descriptors() -> Vec<RawFd> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn path_of(number: RawFd) -> String {
    format!("/proc/self/fd/{number}")
}

/// The file that is open under a number.
fn file_of(number: RawFd) -> Option<FileId> {
    fs::metadata(path_of(number)).ok().map(|found| id_of(&found))
}

fn id_of(found: &Metadata) -> FileId {
    (found.dev(), found.ino())
}

/// The numbers of the descriptors that an epoll set watches.
pub(crate) fn watched_by(epoll: RawFd) -> Vec<RawFd> {
    files_watched_by(epoll).into_iter().map(|(number, _)| number).collect()
}

/// The numbers, and the files, of the descriptors that an epoll set watches.
fn files_watched_by(epoll: RawFd) -> Vec<(RawFd, FileId)> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{epoll}")).unwrap_or_default();
    text.lines().filter_map(watched).collect()
}

/// Reads a line such as `tfd: 8 events: 19 data: 1234  pos:0 ino:61af sdev:7`.
fn watched(line: &str) -> Option<(RawFd, FileId)> {
    let mut words = line.strip_prefix("tfd:")?.split_whitespace();
    let number = words.next()?.parse().ok()?;
    let mut hexadecimal = |name| {
        let value = words.find_map(|word| word.strip_prefix(name))?;
        u64::from_str_radix(value, 16).ok()
    };
    let (inode, device) = (hexadecimal("ino:")?, hexadecimal("sdev:")?);
    // The kernel writes its own number of the device, which has the minor one in its lowest 20 bits.
    let (major, minor) = (u32::try_from(device >> 20).ok()?, u32::try_from(device & 0xf_ffff).ok()?);
    Some((number, (makedev(major, minor), inode)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_kernel_says_which_files_a_runtime_watches() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.unwrap();
        let descriptors = RuntimeDescriptors::of(runtime.handle()).unwrap();
        let (stream, _peer) = UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        let number = stream.as_raw_fd();
        let stream = {
            let _entered = runtime.enter();
            tokio::net::UnixStream::from_std(stream).unwrap()
        };
        let files = |inherited: InheritedDescriptors| -> Vec<_> {
            let own = inherited.0.into_iter().filter(|inherited| inherited.number == number);
            own.map(|inherited| inherited.file).collect()
        };
        assert_eq!(files(descriptors.now_at_work()), [Some(file_of(number).unwrap())]);
        drop(stream);
        assert_eq!(files(descriptors.now_at_work()), []);
    }

    #[test]
    fn the_descriptors_of_a_file_are_found_by_its_path() {
        let path = std::env::temp_dir().join(format!("proxyproto-inherited-{}", std::process::id()));
        let file = fs::File::create(&path).unwrap();
        let inherited = InheritedDescriptors(Vec::new()).with_file(&path);
        fs::remove_file(&path).unwrap();
        let numbers: Vec<_> = inherited.0.iter().map(|inherited| inherited.number).collect();
        assert_eq!(numbers, [file.as_raw_fd()]);
    }
}
