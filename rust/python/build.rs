//! Says once whether this build has the acceptor: `cfg(acceptor)`.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(acceptor)");
    let is_linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if is_linux && env::var_os("CARGO_FEATURE_ACCEPTOR").is_some() {
        println!("cargo::rustc-cfg=acceptor");
    }
}
