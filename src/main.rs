//! Parse, connect, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use comfy_deploy::apply::Cancel;
use comfy_deploy::cli::{Cli, Output};
use comfy_deploy::commands;
use comfy_deploy::error::{Error, Kind};
use comfy_deploy::ui::Ui;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ui = Ui::new(&cli.global);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return finish(&ui, &cli, Err(Error::failed("cannot start the runtime").why(e.to_string()))),
    };
    let (trigger, cancel) = Cancel::new();
    let resume = resume_command();
    let result = runtime.block_on(async {
        tokio::spawn(async move {
            let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else { return };
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            let _ = trigger.send(true);
            // The second one does not wait for anything.
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            std::process::exit(i32::from(Kind::Interrupted.exit_code()));
        });
        commands::run(&cli, &ui, cancel, resume).await
    });
    // Blocking work that was interrupted (a file being read) must not hold the exit back.
    runtime.shutdown_background();
    finish(&ui, &cli, result)
}

/// Prints the result or the error and gives the exit code.
fn finish(ui: &Ui, cli: &Cli, result: Result<commands::Done, Error>) -> ExitCode {
    ui.end_progress();
    let verb = cli.verb.name();
    match result {
        Ok(done) => {
            if ui.output() == Output::Json {
                ui.envelope(verb, Ok(done.data));
            } else {
                ui.data(&done.text);
            }
            ExitCode::from(done.exit_code)
        }
        Err(error) => {
            if ui.output() == Output::Json {
                ui.envelope(verb, Err(&error));
            }
            ui.fail(&error);
            let detailed = matches!(&cli.verb, comfy_deploy::cli::Verb::Plan(p) if p.detailed_exitcode);
            ExitCode::from(if detailed { 1 } else { error.kind().exit_code() })
        }
    }
}

/// The command line as typed, for "continue with".
fn resume_command() -> String {
    let quote = |a: String| if a.chars().all(|c| c.is_ascii_alphanumeric() || "-_=./:@,".contains(c)) { a } else { format!("'{}'", a.replace('\'', r"'\''")) };
    let words: Vec<String> = std::env::args().skip(1).map(quote).collect();
    format!("comfy-deploy {}", words.join(" "))
}
