//! The `attestry` command. Everything it does is in the library; this file only starts it.

fn main() -> std::process::ExitCode {
    attestry::cli::run()
}
