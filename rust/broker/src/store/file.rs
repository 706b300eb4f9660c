//! The directory and the file: who may read them, whose they are, and why they cannot be used.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, StorageError};

/// Opens the file of the store in `directory`, and makes both if they are not there.
pub(super) fn open(directory: &Path) -> Result<Database, OpenError> {
    let failed = |why| OpenError { directory: directory.into(), why };
    make(directory).map_err(|error| failed(Why::Io(error)))?;
    let database = Database::builder().set_cache_size(CACHE).create(file_in(directory));
    database.map_err(|error| failed(error.into()))
}

/// Where the file is.
pub(crate) fn file_in(directory: &Path) -> PathBuf {
    directory.join(NAME)
}

/// Makes the directory and an empty file, for nobody else to read.
fn make(directory: &Path) -> io::Result<()> {
    if !directory.is_dir() {
        DirBuilder::new().mode(0o700).create(directory)?;
        sync(directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    }
    let path = file_in(directory);
    if !path.exists() {
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        sync(directory)?;
    }
    Ok(())
}

/// Makes the names in a directory durable.
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// A store that cannot be used. Nothing of it has been changed.
#[derive(Debug)]
pub(crate) struct OpenError {
    directory: PathBuf,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Io(io::Error),
    InUse,
    Newer(String),
    Damaged(String),
}

impl OpenError {
    pub(super) fn unreadable(directory: &Path, error: redb::Error) -> Self {
        Self { directory: directory.into(), why: error.into() }
    }

    pub(super) fn into_io(self) -> io::Error {
        match self.why {
            Why::Io(error) => error,
            _ => io::Error::other(self.to_string()),
        }
    }
}

/// What went wrong, as an error of the system where it was one.
pub(super) fn into_io(error: redb::Error) -> io::Error {
    match error {
        redb::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

impl From<DatabaseError> for Why {
    fn from(error: DatabaseError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<redb::Error> for Why {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::InUse,
            redb::Error::UpgradeRequired(_) | redb::Error::LockProtocolMismatch => {
                Self::Newer(error.to_string())
            }
            // redb says so of a file that does not begin as its files do.
            redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                Self::Damaged(error.to_string())
            }
            redb::Error::Io(error) => Self::Io(error),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.directory.display();
        match &self.why {
            Why::Io(error) => write!(f, "persistence {path}: {error}"),
            Why::InUse => write!(
                f,
                "persistence {path}: another process has it. End that one, or give each a directory of its own"
            ),
            Why::Newer(why) => write!(
                f,
                "persistence {path}: its format is not that of this version ({why}). Use the version that wrote it, or \
                 name another directory"
            ),
            Why::Damaged(why) => write!(
                f,
                "persistence {path}: {NAME} is damaged or is not a store ({why}). Put a copy of it back, or name another \
                 directory: nothing has been overwritten"
            ),
        }
    }
}

impl std::error::Error for OpenError {}

/// The error of a store whose own format number is not ours.
pub(super) fn other_format(found: u64) -> redb::Error {
    if found > super::tables::FORMAT {
        redb::Error::UpgradeRequired(u8::try_from(found).unwrap_or(u8::MAX))
    } else {
        StorageError::Corrupted(format!("format {found}")).into()
    }
}

const NAME: &str = "broker.redb";
/// redb would take a GiB. What is read again and again is the upper part of its trees.
const CACHE: usize = 16 << 20;
