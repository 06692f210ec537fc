//! Makes sure that the folder of the built console exists, so that cargo alone builds the program.

use std::path::Path;

fn main() {
    let dist = Path::new("console/dist");
    if let Err(error) = std::fs::create_dir_all(dist) {
        panic!("console/dist cannot be created: {error}");
    }
    println!("cargo::rerun-if-changed=console/dist");
}
