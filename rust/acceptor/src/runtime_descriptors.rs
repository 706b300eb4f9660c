//! The descriptors of a tokio runtime. tokio does not name them, so they are looked up in /proc.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
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
pub struct InheritedDescriptors(Vec<RawFd>);

impl RuntimeDescriptors {
    /// Those of this runtime, which no thread drives yet.
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
        InheritedDescriptors(watched.into_iter().chain(self.epolls.iter().copied()).collect())
    }
}

impl InheritedDescriptors {
    /// Closes the copies of a forked child. Nothing there may run or drop what has owned them: the tasks of the runtime.
    pub fn close_in_child(self) {
        self.0.into_iter().for_each(sys::close_inherited);
    }
}

/// The open descriptors that the kernel describes by `kind`.
pub(crate) fn descriptors_of_kind(kind: &str) -> Vec<RawFd> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == kind))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The numbers of the descriptors that an epoll set watches.
pub(crate) fn watched_by(epoll: RawFd) -> Vec<RawFd> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{epoll}")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.strip_prefix("tfd:")?.split_whitespace().next()?.parse().ok())
        .collect()
}
