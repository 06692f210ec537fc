//! The `runlane` program; everything is in the library.

fn main() {
    print!("{}", runlane::config::env_example());
}
