//! Parse, connect, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use comfy_deploy::apply::Cancel;
use comfy_deploy::cli::{Cli, Global, Verb};
use comfy_deploy::commands::{self, Done};
use comfy_deploy::error::{Error, Kind};
use comfy_deploy::ui::Ui;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let env = |name: &str| std::env::var(name).ok();
    let ui = match Ui::new(&cli.global, &env) {
        Ok(ui) => ui,
        Err(error) => {
            // Without the variable that is wrong there is still a way to say so.
            if let Ok(ui) = Ui::new(&Global::default(), &|_| None) {
                ui.fail(cli.verb.name(), &error);
            }
            return ExitCode::from(error.kind().exit_code());
        }
    };
    logging(cli.global.verbose);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return finish(&ui, &cli, Err(Error::failed("cannot start the runtime").why(e.to_string()))),
    };
    let (trigger, cancel) = Cancel::new();
    let asking = ui.asking();
    let result = runtime.block_on(async {
        tokio::spawn(async move {
            let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
            let (Ok(mut interrupt), Ok(mut terminate)) = signals else { return };
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            if asking.load(std::sync::atomic::Ordering::SeqCst) {
                std::process::exit(i32::from(Kind::Interrupted.exit_code()));
            }
            let _ = trigger.send(true);
            // The second one does not wait for anything.
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            std::process::exit(i32::from(Kind::Interrupted.exit_code()));
        });
        commands::run(&cli, &ui, cancel, resume_command()).await
    });
    // Blocking work that was interrupted (a file being read) must not hold the exit back.
    runtime.shutdown_background();
    finish(&ui, &cli, result)
}

/// Prints the result or the error and gives the exit code.
fn finish(ui: &Ui, cli: &Cli, result: Result<Done, Error>) -> ExitCode {
    ui.finish();
    let verb = cli.verb.name();
    let result = result.and_then(|done| ui.succeed(verb, &done.text, done.data).map(|()| done.exit_code));
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            ui.fail(verb, &error);
            let detailed = matches!(&cli.verb, Verb::Plan(p) if p.detailed_exitcode);
            ExitCode::from(if detailed { 1 } else { error.kind().exit_code() })
        }
    }
}

/// The log goes to stderr: our own from `-vv`, everything from `-vvv`; COMFY_DEPLOY_LOG takes a filter instead.
fn logging(verbose: u8) {
    let filter = match verbose {
        0 | 1 => "off",
        2 => "comfy_deploy=debug",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("COMFY_DEPLOY_LOG").unwrap_or_else(|_| filter.into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// The command line as typed, for "continue with".
fn resume_command() -> String {
    let plain = |a: &str| a.chars().all(|c| c.is_ascii_alphanumeric() || "-_=./:@,".contains(c));
    let quote = |a: String| if plain(&a) { a } else { format!("'{}'", a.replace('\'', r"'\''")) };
    let words: Vec<String> = std::env::args().skip(1).map(quote).collect();
    format!("comfy-deploy {}", words.join(" "))
}
