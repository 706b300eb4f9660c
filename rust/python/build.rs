//! Says once whether this build has the acceptor, and the broker: `cfg(acceptor)`, `cfg(broker)`.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(acceptor, broker)");
    let is_linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if is_linux && env::var_os("CARGO_FEATURE_ACCEPTOR").is_some() {
        println!("cargo::rustc-cfg=acceptor");
        if env::var_os("CARGO_FEATURE_BROKER").is_some() {
            println!("cargo::rustc-cfg=broker");
        }
    }
}
