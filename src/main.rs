//! The `strongroom` binary: parses, runs, exits with the documented code.

fn main() -> std::process::ExitCode {
    strongroom::cli::main()
}
