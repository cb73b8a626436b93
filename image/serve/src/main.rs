//! comfy-serve: see the library.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use comfy_serve::{Cli, Command};

fn main() -> ExitCode {
    share_memory();
    let cli = Cli::parse();
    // One JSON object a line: CloudWatch Logs Insights reads the fields by itself.
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(tracing::level_filters::LevelFilter::INFO)
        .with_target(false)
        .with_current_span(false)
        .with_span_list(false)
        // Nobody reads the log any more: requests must go on all the same. The complaint about it would go to the
        // standard error, and panic when that is closed too.
        .log_internal_errors(false)
        .init();
    match start(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            tracing::error!("{cause}");
            ExitCode::FAILURE
        }
    }
}

/// Lets all threads allocate from one place. By default glibc gives each its own, and each keeps the most that it ever
/// held; one place was measured not to be slower with a thread for each core.
///
/// And lets what is large come from the kernel and go back there: by default that depends on the order in which requests
/// of different sizes came. Pictures have buffers that are used again, so they do not pay for it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "there is no safe binding")]
fn share_memory() {
    const LARGE: i32 = 256 * 1024;
    const KEEP: i32 = 2 * 1024 * 1024;
    for (option, value) in [(libc::M_ARENA_MAX, 1), (libc::M_TRIM_THRESHOLD, KEEP), (libc::M_MMAP_THRESHOLD, LARGE)] {
        // SAFETY: mallopt takes two numbers, and no other thread allocates yet.
        unsafe { libc::mallopt(option, value) };
    }
}

/// Other allocators do as they do.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn share_memory() {}

fn start(command: Command) -> io::Result<()> {
    match command {
        Command::Serve(options) => {
            // Pictures are converted on threads of their own; to move bytes one is enough, and nobody is woken in turns.
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            runtime.worker_threads(1).enable_all().build()?.block_on(comfy_serve::run(*options))
        }
        Command::Health(options) => comfy_serve::check(options.target()),
    }
}
