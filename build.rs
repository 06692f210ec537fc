//! Rebuilds when what is compiled into the program changes: the migrations and the built console.

use std::path::Path;

fn main() {
    // So that cargo alone builds the program; without the console it serves a page that says so.
    let dist = Path::new("console/dist");
    if let Err(error) = std::fs::create_dir_all(dist) {
        panic!("console/dist cannot be created: {error}");
    }
    println!("cargo::rerun-if-changed=console/dist");
    println!("cargo::rerun-if-changed=schema/migrations");
}
