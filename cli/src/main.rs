//! The `verge` program: reads its arguments, runs one command, tells how it ended.

use clap::Parser;
use std::process::ExitCode;
use verge_cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The compiler child takes no flags of ours, and must not start anything first.
    if std::env::args_os().nth(1).is_some_and(|first| first == "compile-component") {
        return verge_handlers::compile_child();
    }
    let cli = Cli::parse();
    // A second provider is refused, and whichever is there will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(verge_cli::run(cli));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    code
}
