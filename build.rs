//! Rebuilds when a migration changes (they are part of the program), and makes sure that the folder of the built
//! console exists, so that cargo alone builds the program.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=schema/migrations");
    let dist = Path::new("console/dist");
    if let Err(error) = std::fs::create_dir_all(dist) {
        panic!("console/dist cannot be created: {error}");
    }
    println!("cargo::rerun-if-changed=console/dist");
}
