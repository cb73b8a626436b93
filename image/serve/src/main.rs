//! comfy-serve: see the library.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_max_level(tracing::level_filters::LevelFilter::INFO)
        .with_target(false)
        // Log groups show escape sequences as they are.
        .with_ansi(std::io::stdout().is_terminal())
        .init();
    let cli = comfy_serve::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => {
            tracing::error!(%cause, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(comfy_serve::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            tracing::error!("{cause}");
            ExitCode::FAILURE
        }
    }
}
