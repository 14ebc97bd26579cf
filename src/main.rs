//! The `strongroom` binary: parses, runs, exits with the documented code.

use std::io::Write;

fn main() {
    let code = strongroom::cli::main();
    drop(std::io::stdout().flush());
    // Without destructors: RocksDB's would run while a thread may still be reading ahead through it.
    signal_hook::low_level::exit(code.into());
}
