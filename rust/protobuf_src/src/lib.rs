//! Stands for the crate of this name, whose build compiles protoc and its libraries from C++. Its user asks for it only where
//! no protoc is installed.

use std::path::PathBuf;

/// What to run where no protoc is found: nothing that there is, under a name that says what to do.
#[must_use]
pub fn protoc() -> PathBuf {
    "protoc, which is not installed: `apt-get install protobuf-compiler`, or set PROTOC".into()
}

/// Where the files are that protoc comes with: it knows them.
#[must_use]
pub fn include() -> PathBuf {
    PathBuf::new()
}
