//! The stand-in as a program: takes the place of `python main.py`.

use std::{io::Write as _, process::ExitCode};

use comfyui_stand_in::{Command, StandIn, parse_arguments};

fn say(text: &str) {
    // A closed stderr is no reason to end.
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seed = std::env::var("PYTHONHASHSEED").ok();
    let options = match parse_arguments(&arguments, seed.as_deref()) {
        Ok(Command::Serve(options)) => *options,
        Ok(Command::Help) => {
            let _ = std::io::stdout().write_all(comfyui_stand_in::HELP.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            say(&format!("main.py: error: {error}"));
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        // Set up before the server listens: whoever connects may send a signal.
        let interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt());
        let mut interrupt = match interrupt {
            Ok(interrupt) => interrupt,
            Err(error) => {
                say(&format!("cannot handle signals: {error}"));
                return ExitCode::FAILURE;
            }
        };
        let listen = options.listen.first().cloned().unwrap_or_default();
        let stand_in = match StandIn::start(options) {
            Ok(stand_in) => stand_in,
            Err(error) => {
                say(&error.to_string());
                return ExitCode::FAILURE;
            }
        };
        say("Starting server\n");
        say(&format!("To see the GUI go to: http://{listen}:{}", stand_in.port()));
        loop {
            tokio::select! {
                _ = interrupt.recv() => {
                    say("\nStopped server");
                    stand_in.stop();
                    return ExitCode::SUCCESS;
                }
                () = tokio::time::sleep(std::time::Duration::from_millis(5)) => {
                    // A node ended the process.
                    if !stand_in.is_up() {
                        std::process::exit(1);
                    }
                }
            }
        }
    })
}
