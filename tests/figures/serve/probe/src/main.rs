//! The client of the figures: the same code asks the servers and ComfyUI itself, so that what it costs cancels out.
//!
//! Prints one JSON object: `us`, how long each exchange took in microseconds until its last byte; `statuses`, how often
//! each HTTP status came; `bytes`, the length of the last body.

mod direct;
mod http;

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::{Parser, Subcommand};
use hyper::Method;
use tokio::time::{Instant, sleep_until};

use crate::http::{Http, Tally};

/// Measures servers in front of ComfyUI, and ComfyUI itself.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// GET a URL again and again, one at a time.
    Ping {
        /// What to get.
        url: String,
        /// Seconds to go on.
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
        /// Milliseconds from one to the next.
        #[arg(long, default_value_t = 10)]
        every: u64,
    },
    /// POST a workflow again and again.
    Invoke {
        /// Where to.
        url: String,
        /// A file with the body.
        workflow: PathBuf,
        /// How often.
        #[arg(long, default_value_t = 100)]
        count: usize,
        /// How many at a time.
        #[arg(long, default_value_t = 1)]
        parallel: usize,
        /// The Accept header; none when empty.
        #[arg(long, default_value = "")]
        accept: String,
        /// Where to write the last body.
        #[arg(long)]
        save: Option<PathBuf>,
    },
    /// Run a workflow in ComfyUI itself: POST, its WebSocket until the end, GET /view.
    Direct {
        /// ComfyUI's URL.
        url: String,
        /// A file with the workflow.
        workflow: PathBuf,
        /// How often.
        #[arg(long, default_value_t = 100)]
        count: usize,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let tally = match Cli::parse().command {
        Command::Ping { url, seconds, every } => ping(&url, seconds, Duration::from_millis(every)).await,
        Command::Invoke { url, workflow, count, parallel, accept, save } => {
            let body = std::fs::read(workflow)?;
            let tally = invoke(&url, body, count, parallel, &accept).await;
            if let Some(path) = save {
                std::fs::write(path, &tally.last)?;
            }
            tally
        }
        Command::Direct { url, workflow, count } => direct::run(&url, &std::fs::read(workflow)?, count).await?,
    };
    writeln!(std::io::stdout(), "{}", tally.json())?;
    Ok(())
}

async fn ping(url: &str, seconds: f64, every: Duration) -> Tally {
    let http = Http::new();
    let mut tally = Tally::default();
    let mut due = Instant::now();
    let end = due + Duration::from_secs_f64(seconds);
    while due < end {
        // What is late because the answer before it was late has waited since it was due: the server's pauses would
        // else be seen by one ping only.
        let late = due < Instant::now();
        sleep_until(due).await;
        let begun = if late { due } else { Instant::now() };
        let answer = http.call(Method::GET, url, &[], Vec::new().into()).await;
        tally.note(begun, answer);
        due += every;
    }
    tally
}

async fn invoke(url: &str, body: Vec<u8>, count: usize, parallel: usize, accept: &str) -> Tally {
    let http = Http::new();
    let body = bytes::Bytes::from(body);
    let left = Arc::new(AtomicUsize::new(count));
    let take = |left: &AtomicUsize| {
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    };
    let callers = (0..parallel).map(|_| {
        let (http, body, left) = (http.clone(), body.clone(), Arc::clone(&left));
        async move {
            let mut tally = Tally::default();
            while take(&left) {
                let begun = Instant::now();
                let mut headers = vec![("content-type", "application/json")];
                if !accept.is_empty() {
                    headers.push(("accept", accept));
                }
                let answer = http.call(Method::POST, url, &headers, body.clone()).await;
                tally.note(begun, answer);
            }
            tally
        }
    });
    futures::future::join_all(callers).await.into_iter().fold(Tally::default(), Tally::with)
}
