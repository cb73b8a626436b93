//! The only writer to stdout and stderr. stdout is data, stderr is talk; a prompt needs a terminal; nothing here
//! panics when a pipe is closed.

mod envelope;
mod fail;

use std::io::{BufRead, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table};

use crate::cli::{ColorChoice, Global, Output, ProgressChoice};
use crate::error::{Error, Kind, Look, Result};
use crate::progress::lines::{self, Lines};
use crate::progress::tty::Screen;
use crate::progress::{Reporter, Silent};

pub use envelope::envelope;
pub use fail::error_text;

/// What the surrounding terminal is like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terminal {
    /// stdin can be asked.
    pub stdin: bool,
    /// stdout is seen by somebody.
    pub stdout: bool,
    /// stderr is seen by somebody.
    pub stderr: bool,
    /// Columns, if known.
    pub width: Option<u16>,
}

impl Terminal {
    /// The terminal of this process.
    pub fn of_process() -> Self {
        Terminal {
            stdin: std::io::stdin().is_terminal(),
            stdout: std::io::stdout().is_terminal(),
            stderr: std::io::stderr().is_terminal(),
            width: size().map(|(columns, _)| columns),
        }
    }
}

/// Columns and rows of the terminal on stderr.
fn size() -> Option<(u16, u16)> {
    rustix::termios::tcgetwinsize(std::io::stderr())
        .ok()
        .map(|s| (s.ws_col, s.ws_row))
        .filter(|(c, r)| *c > 0 && *r > 0)
}

/// How to write: decided once from flags, variables and the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// What stdout carries.
    pub output: Output,
    /// How stdout is drawn.
    pub out: Look,
    /// How stderr is drawn.
    pub err: Look,
    /// How progress is shown: never `Auto`.
    pub progress: ProgressChoice,
    /// Whether somebody can be asked.
    pub ask: bool,
    /// `--yes`.
    pub yes: bool,
    /// `-v`, counted.
    pub verbose: u8,
}

impl Manner {
    /// Decides.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a variable with a value that is not allowed.
    pub fn decide(global: &Global, env: &dyn Fn(&str) -> Option<String>, terminal: Terminal) -> Result<Self> {
        let var = |name: &str| env(name).filter(|value| !value.is_empty());
        let switch = |name: &str| crate::settings::switch(name, var(name));
        let output = choice(global.output, "COMFY_DEPLOY_OUTPUT", &var)?;
        let color = choice(global.color, "COMFY_DEPLOY_COLOR", &var)?;
        let progress = choice(global.progress, "COMFY_DEPLOY_PROGRESS", &var)?;
        let dumb = var("TERM").is_some_and(|term| term == "dumb");
        let forced = var("CLICOLOR_FORCE").is_some_and(|value| value != "0");
        let refused = var("NO_COLOR").is_some() || var("CLICOLOR").is_some_and(|value| value == "0");
        let colour = |seen: bool| match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto if refused => false,
            ColorChoice::Auto if forced => true,
            ColorChoice::Auto => seen && !dumb,
        };
        let utf8 = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(var).is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        let columns = var("COLUMNS").and_then(|c| c.parse().ok()).filter(|c| *c > 0);
        let width = columns.or(terminal.width).unwrap_or(Look::PLAIN.width).clamp(40, 120);
        let look = |seen: bool| Look { colour: colour(seen), unicode: seen && utf8 && !dumb, width };
        // A CI system that gives its jobs a pseudo-terminal still keeps a log, in which a live screen is noise.
        let live = terminal.stderr && !dumb && var("CI").is_none_or(|ci| ci == "false" || ci == "0");
        let progress = match progress {
            ProgressChoice::Auto if live => ProgressChoice::Tty,
            ProgressChoice::Tty if terminal.stderr => ProgressChoice::Tty,
            ProgressChoice::Auto | ProgressChoice::Tty => ProgressChoice::Plain,
            other => other,
        };
        let no_input = global.no_input || switch("COMFY_DEPLOY_NO_INPUT")?;
        Ok(Manner {
            output,
            out: look(terminal.stdout),
            err: look(terminal.stderr),
            progress,
            ask: terminal.stdin && terminal.stderr && !no_input,
            yes: global.yes || switch("COMFY_DEPLOY_YES")?,
            verbose: global.verbose,
        })
    }
}

/// A flag, else its variable, else the default.
fn choice<T: clap::ValueEnum + Default>(
    flag: Option<T>,
    name: &str,
    var: &dyn Fn(&str) -> Option<String>,
) -> Result<T> {
    if let Some(value) = flag {
        return Ok(value);
    }
    let Some(text) = var(name) else { return Ok(T::default()) };
    T::from_str(&text, true).map_err(|_| {
        let known: Vec<String> =
            T::value_variants().iter().filter_map(|v| v.to_possible_value()).map(|v| v.get_name().to_owned()).collect();
        Error::usage(format!("{name} is `{text}`"))
            .why(format!("allowed: {}", known.join(", ")))
            .next(format!("unset {name}"))
    })
}

/// The only writer to stdout and stderr.
pub struct Ui {
    manner: Manner,
    out: Mutex<Box<dyn Write + Send>>,
    err: Arc<Mutex<Box<dyn Write + Send>>>,
    input: Mutex<Box<dyn BufRead + Send>>,
    screen: Mutex<Weak<Screen>>,
    lines: Mutex<Weak<Lines>>,
    asking: Arc<AtomicBool>,
}

impl Ui {
    /// On this process's streams.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a variable with a value that is not allowed.
    pub fn new(global: &Global, env: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let manner = Manner::decide(global, env, Terminal::of_process())?;
        Ok(Self::with(
            manner,
            Box::new(std::io::stdout()),
            Box::new(std::io::stderr()),
            Box::new(std::io::BufReader::new(std::io::stdin())),
        ))
    }

    /// On other streams, for tests.
    pub fn with(
        manner: Manner,
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
        input: Box<dyn BufRead + Send>,
    ) -> Self {
        Ui {
            manner,
            out: Mutex::new(out),
            err: Arc::new(Mutex::new(err)),
            input: Mutex::new(input),
            screen: Mutex::default(),
            lines: Mutex::default(),
            asking: Arc::default(),
        }
    }

    /// How it writes.
    pub fn manner(&self) -> &Manner {
        &self.manner
    }

    /// Whether stdout carries the JSON envelope.
    pub fn is_json(&self) -> bool {
        self.manner.output == Output::Json
    }

    /// Writes data to stdout; a newline is added if there is none. A closed pipe is no error: the reader had enough.
    ///
    /// # Errors
    /// Anything else that keeps the data from being written, as a full disk.
    pub fn data(&self, text: &str) -> Result<()> {
        self.finish();
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let newline: &[u8] = if text.is_empty() || text.ends_with('\n') { b"" } else { b"\n" };
        match out.write_all(text.as_bytes()).and_then(|()| out.write_all(newline)).and_then(|()| out.flush()) {
            Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Error::failed("cannot write to stdout").why(e.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Says something on stderr, above a live screen if there is one. Nothing to be done if stderr is closed.
    pub fn talk(&self, text: &str) {
        self.quietly(|| write_line(&self.err, text));
    }

    /// Says something only if `-v` was given at least so often.
    pub fn detail(&self, level: u8, text: &str) {
        if self.manner.verbose >= level {
            self.talk(text);
        }
    }

    /// A warning on stderr.
    pub fn warn(&self, text: &str) {
        let word = self.paint_err(AnsiColor::Yellow.on_default().bold(), "warning:");
        self.talk(&format!("{word} {text}"));
    }

    /// Text in a style, if stdout has colour.
    pub fn paint(&self, style: Style, text: &str) -> String {
        paint(self.manner.out.colour, style, text)
    }

    /// Text in a style, if stderr has colour.
    pub fn paint_err(&self, style: Style, text: &str) -> String {
        paint(self.manner.err.colour, style, text)
    }

    /// A table without borders, as wide as the terminal at most; its lines end without blanks.
    pub fn table(&self, headers: &[&str], rows: &[Vec<String>]) -> String {
        table(headers, rows, self.manner.out.width)
    }

    /// Asks a yes-or-no question; no is the default. `--yes` answers it.
    ///
    /// # Errors
    /// [`Kind::Refused`] if nobody can be asked.
    pub fn confirm(&self, question: &str) -> Result<bool> {
        if self.manner.yes {
            return Ok(true);
        }
        if !self.manner.ask {
            return Err(Error::new(Kind::Refused, "this needs a confirmation, and nobody can be asked")
                .why(question.to_owned())
                .next("run it in a terminal, or add --yes (COMFY_DEPLOY_YES=1)"));
        }
        for _ in 0..3 {
            let answer = self.ask(&format!("{question} [y/N] "))?;
            match answer.as_deref().map(str::trim).map(str::to_ascii_lowercase).as_deref() {
                Some("y" | "yes") => return Ok(true),
                None | Some("" | "n" | "no") => return Ok(false),
                Some(_) => self.talk("Please answer y or n."),
            }
        }
        Ok(false)
    }

    /// Asks for a name to be typed, as before something that cannot be undone. `given` is the one from a flag, which
    /// `flag` names. `--yes` does not answer it.
    ///
    /// # Errors
    /// [`Kind::Refused`] if another name is given or nobody can be asked.
    pub fn confirm_name(&self, expected: &str, given: Option<&str>, flag: &str) -> Result<()> {
        let wrong = |name: &str| {
            Error::new(Kind::Refused, format!("`{name}` is not `{expected}`; nothing was changed"))
                .next(format!("{flag} {expected}"))
        };
        match given {
            Some(name) if name == expected => return Ok(()),
            Some(name) => return Err(wrong(name)),
            None => {}
        }
        if !self.manner.ask {
            return Err(Error::new(
                Kind::Refused,
                format!("this needs the name `{expected}` typed, and nobody can be asked"),
            )
            .next(format!("run it in a terminal, or add {flag} {expected}")));
        }
        match self.ask(&format!("Type `{expected}` to go on: "))?.as_deref().map(str::trim) {
            Some(name) if name == expected => Ok(()),
            None | Some("") => Err(Error::new(Kind::Refused, "refused; nothing was changed")),
            Some(name) => Err(wrong(name)),
        }
    }

    /// A line that was typed; none at the end of input.
    fn ask(&self, prompt: &str) -> Result<Option<String>> {
        self.quietly(|| {
            {
                let mut err = self.err.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = err.write_all(prompt.as_bytes()).and_then(|()| err.flush());
            }
            let mut line = String::new();
            let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
            self.asking.store(true, Ordering::SeqCst);
            let read = input.read_line(&mut line);
            self.asking.store(false, Ordering::SeqCst);
            match read {
                Ok(0) => {
                    // The cursor still stands behind the prompt.
                    write_line(&self.err, "");
                    Ok(None)
                }
                Ok(_) => Ok(Some(line)),
                Err(e) => Err(Error::failed("cannot read the answer").why(e.to_string())),
            }
        })
    }

    /// Whether somebody is being asked at this moment. Nothing has been changed then, and nothing can end the waiting
    /// for the answer but the end of the process.
    pub fn asking(&self) -> Arc<AtomicBool> {
        self.asking.clone()
    }

    /// Reports a failure: as text on stderr, or as the envelope on stdout.
    pub fn fail(&self, command: &str, error: &Error) {
        self.finish();
        if self.is_json() {
            // There is no second way to report this one.
            let _ = self.data(&envelope(command, Err(error)));
        } else {
            self.talk(&error_text(error, self.manner.err));
        }
    }

    /// Reports a result: `text` for people, or the envelope around `data`.
    ///
    /// # Errors
    /// See [`Ui::data`].
    pub fn succeed(&self, command: &str, text: &str, data: serde_json::Value) -> Result<()> {
        if self.is_json() { self.data(&envelope(command, Ok(data))) } else { self.data(text) }
    }

    /// The reporter of this run's progress, on stderr. A later one takes the place of the earlier.
    pub fn reporter(&self) -> Arc<dyn Reporter> {
        self.finish();
        match self.manner.progress {
            ProgressChoice::Tty => {
                let size = || size().map_or((80, 24), |(columns, rows)| (usize::from(columns), usize::from(rows)));
                let screen = Screen::start(lines::clock(), self.manner.err.colour, Box::new(size));
                *self.screen.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&screen);
                screen
            }
            ProgressChoice::None => Arc::new(Silent),
            ProgressChoice::Auto | ProgressChoice::Plain => {
                let err = self.err.clone();
                let lines = Lines::start(lines::clock(), Arc::new(move |text: &str| write_line(&err, text)));
                *self.lines.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&lines);
                lines
            }
        }
    }

    /// Ends the progress, leaving its summary.
    pub fn finish(&self) {
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        if let Some(screen) = screen {
            screen.finish();
        }
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        if let Some(lines) = lines {
            lines.finish();
        }
    }

    /// Runs something with a live screen out of the way.
    fn quietly<R>(&self, f: impl FnOnce() -> R) -> R {
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        match screen {
            Some(screen) => screen.suspend(f),
            None => f(),
        }
    }
}

fn paint(colour: bool, style: Style, text: &str) -> String {
    if colour { format!("{}{text}{}", style.render(), style.render_reset()) } else { text.to_owned() }
}

fn write_line(err: &Mutex<Box<dyn Write + Send>>, text: &str) {
    let mut err = err.lock().unwrap_or_else(PoisonError::into_inner);
    // One write, so that lines of several threads stay whole. Nobody can be told that stderr is closed.
    let _ = err.write_all(format!("{text}\n").as_bytes()).and_then(|()| err.flush());
}

/// A table without borders: headers in capitals, two blanks between columns.
fn table(headers: &[&str], rows: &[Vec<String>], width: u16) -> String {
    let mut table = Table::new();
    table
        .load_preset(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width);
    if !headers.is_empty() {
        table.set_header(headers.iter().map(|header| header.to_uppercase()));
    }
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let drawn = table.to_string();
    drawn.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
