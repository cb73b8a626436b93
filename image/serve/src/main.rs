//! comfy-serve: see the library.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use comfy_serve::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One JSON object a line: CloudWatch Logs Insights reads the fields by itself.
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(tracing::level_filters::LevelFilter::INFO)
        .with_target(false)
        .with_current_span(false)
        .with_span_list(false)
        .init();
    match start(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            tracing::error!("{cause}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> io::Result<()> {
    match command {
        Command::Serve(options) => {
            tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(comfy_serve::run(*options))
        }
        Command::Health(options) => comfy_serve::check(options.target()),
    }
}
