//! Rebuilds when a migration changes: they are part of the program.

fn main() {
    println!("cargo:rerun-if-changed=schema/migrations");
}
