//! The `runlane` program; everything is in the library.

fn main() -> anyhow::Result<()> {
    runlane::cli::main()
}
