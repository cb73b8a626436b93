//! The stand-in as a program: takes the place of `python main.py`. In an image it can have Python's name, where it is
//! started as ComfyUI is: `python3 /opt/comfyui/main.py`.

use std::{io::Write as _, process::ExitCode};

use comfyui_stand_in::{Command, StandIn, parse_arguments};

fn say(text: &str) {
    // A closed stderr is no reason to end.
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Whether SIGINT was ignored when this process began, as shells have it for what they start with `&`: Python leaves it
/// so, and nothing but another signal ends ComfyUI then.
fn interrupt_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    // Bit 0 is signal 1; SIGINT is 2.
    mask & 2 != 0
}

fn main() -> ExitCode {
    let mut words = std::env::args();
    let name = words.next().unwrap_or_default();
    let script = usize::from(std::path::Path::new(&name).file_name().is_some_and(|name| name == "python3"));
    let arguments: Vec<String> = words.skip(script).collect();
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
        let interrupt = match interrupt_is_ignored() {
            true => Ok(None),
            false => tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).map(Some),
        };
        let mut interrupt = match interrupt {
            Ok(interrupt) => interrupt,
            Err(error) => {
                say(&format!("cannot handle signals: {error}"));
                return ExitCode::FAILURE;
            }
        };
        let interrupted = async {
            match &mut interrupt {
                Some(interrupt) => interrupt.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(interrupted);
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
                _ = &mut interrupted => {
                    say("\nStopped server");
                    stand_in.stop();
                    return ExitCode::SUCCESS;
                }
                () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {
                    // A node ended the process.
                    if !stand_in.is_up() {
                        std::process::exit(1);
                    }
                }
            }
        }
    })
}
