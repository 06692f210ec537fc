//! The `runlane` program; everything is in the library.

fn main() -> std::process::ExitCode {
    runlane::cli::main()
}
