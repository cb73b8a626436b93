//! Problems of the config, and how they are drawn: what is wrong, the line with a caret, what to write instead.

use std::ops::Range;
use std::sync::Arc;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource, ThemeCharacters};

use super::tree::{Origin, Path};
use crate::error::{Drawing, Error, Look};

/// Whether a problem stops the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is done.
    Error,
    /// Said, and done anyway.
    Warning,
}

/// One problem of the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether it stops the run.
    pub severity: Severity,
    /// The value's path, as in `endpoint.instance_type`; empty for the file as a whole.
    pub path: Path,
    /// What is wrong, as one sentence that names the path.
    pub what: String,
    /// A few words for under the caret.
    pub label: String,
    /// What is allowed or what to write instead.
    pub help: Option<String>,
    /// Where it came from, once known.
    pub origin: Option<Origin>,
    /// Whether the key is meant rather than its value.
    pub on_key: bool,
}

impl Problem {
    /// An error at a path.
    pub fn error(path: Path, what: impl Into<String>) -> Self {
        Problem {
            severity: Severity::Error,
            path,
            what: what.into(),
            label: "here".into(),
            help: None,
            origin: None,
            on_key: false,
        }
    }

    /// A warning at a path.
    pub fn warning(path: Path, what: impl Into<String>) -> Self {
        Problem { severity: Severity::Warning, ..Self::error(path, what) }
    }

    /// Sets the words under the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Says what is allowed or what to write instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Sets where it came from.
    #[must_use]
    pub fn at(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Points at the key instead of the value.
    #[must_use]
    pub fn on_key(mut self) -> Self {
        self.on_key = true;
        self
    }

    /// Whether it stops the run.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    fn range(&self) -> Option<Range<usize>> {
        match self.origin {
            Some(Origin::File { start, end }) => Some(start..end.max(start)),
            _ => None,
        }
    }
}

/// The config file's name and text, for drawing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// As the user would type it.
    pub name: String,
    /// Its text, line ends as `\n`, without a byte order mark.
    pub text: String,
}

impl Source {
    /// The line of a byte, counted from 1.
    pub fn line(&self, byte: usize) -> usize {
        self.text.as_bytes().iter().take(byte).filter(|b| **b == b'\n').count() + 1
    }
}

/// All problems of one config with the text they stand in.
#[derive(Debug, Clone)]
pub struct Problems {
    /// The file; none when there is no file.
    pub source: Option<Arc<Source>>,
    /// Errors and warnings.
    pub list: Vec<Problem>,
}

impl Problems {
    /// Puts errors first, then in the order of the file; drops repeats.
    pub fn new(source: Option<Arc<Source>>, mut list: Vec<Problem>) -> Self {
        list.sort_by_key(|p| (p.severity, p.range().map_or(usize::MAX, |r| r.start)));
        list.dedup();
        Problems { source, list }
    }

    /// The problems as one error, if one of them is an error.
    pub fn into_error(self) -> Option<Error> {
        let errors = self.list.iter().filter(|p| p.is_error()).count();
        let name = self.source.as_ref().map_or("the settings", |s| s.name.as_str());
        let what = match errors {
            0 => return None,
            1 => self.list.iter().find(|p| p.is_error()).map(|p| p.what.clone()).unwrap_or_default(),
            n => format!("{name} has {n} errors"),
        };
        let mut error = Error::usage(what);
        for problem in self.list.iter().filter(|p| p.is_error()) {
            // One error says itself; of several, each is a reason, with its line.
            if errors > 1 {
                error = error.why(self.one_line(problem));
            } else if let Some(help) = &problem.help {
                error = error.why(help.clone());
            }
        }
        Some(error.drawing(Arc::new(self)))
    }

    /// The problem as one line: `comfy-deploy.yaml:12: what`.
    pub fn one_line(&self, problem: &Problem) -> String {
        match (problem.range(), &self.source) {
            (Some(range), Some(source)) => format!("{}:{}: {}", source.name, source.line(range.start), problem.what),
            _ => problem.what.clone(),
        }
    }

    fn draw_one(&self, problem: &Problem, look: Look) -> String {
        let mut diagnostic = MietteDiagnostic::new(problem.what.clone()).with_severity(match problem.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        });
        if let Some(help) = &problem.help {
            diagnostic = diagnostic.with_help(help.clone());
        }
        let source = match (&self.source, problem.range()) {
            (Some(source), Some(range)) => {
                let (text, range) = shorten(&source.text, clip(&source.text, range));
                diagnostic =
                    diagnostic.with_label(LabeledSpan::new_with_span(Some(problem.label.clone()), clip(&text, range)));
                Some(NamedSource::new(&source.name, text))
            }
            _ => None,
        };
        let report = miette::Report::new(diagnostic);
        let report = match source {
            Some(source) => report.with_source_code(source),
            None => report,
        };
        let mut theme = match (look.unicode, look.colour) {
            (true, true) => GraphicalTheme::unicode(),
            (true, false) => GraphicalTheme::unicode_nocolor(),
            (false, _) => GraphicalTheme { characters: ThemeCharacters::ascii(), ..GraphicalTheme::none() },
        };
        theme.characters.error = "error:".into();
        theme.characters.warning = "warning:".into();
        let mut drawn = String::new();
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(usize::from(look.width.max(40)))
            .with_links(false)
            .with_context_lines(1);
        if handler.render_report(&mut drawn, report.as_ref()).is_err() {
            return self.one_line(problem);
        }
        tidy(&drawn)
    }
}

impl Drawing for Problems {
    fn draw(&self, look: Look) -> String {
        let mut drawn: Vec<String> = self.list.iter().map(|problem| self.draw_one(problem, look)).collect();
        let count = |severity| self.list.iter().filter(|p| p.severity == severity).count();
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        if errors + warnings > 1 {
            let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
            let mut total = Vec::new();
            if errors > 0 {
                total.push(plural(errors, "error"));
            }
            if warnings > 0 {
                total.push(plural(warnings, "warning"));
            }
            let name = self.source.as_ref().map_or("settings", |s| s.name.as_str());
            drawn.push(format!("{name}: {}", total.join(", ")));
        }
        drawn.join("\n\n")
    }
}

/// The text with over-long lines cut, and the range where it stands then: a value of a thousand bytes would push
/// everything else off the screen.
fn shorten(text: &str, range: Range<usize>) -> (String, Range<usize>) {
    const LONGEST: usize = 160;
    let (mut short, mut start) = (String::with_capacity(text.len()), range.start);
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let body = line.trim_end_matches('\n');
        let cut = body.char_indices().nth(LONGEST).map_or(body.len(), |(cut, _)| cut);
        if at <= range.start {
            start = short.len() + (range.start - at).min(cut);
        }
        short.push_str(&body[..cut]);
        if cut < body.len() {
            short.push_str("...");
        }
        if body.len() < line.len() {
            short.push('\n');
        }
        at += line.len();
    }
    let end = (start + range.len()).min(short.len());
    let end = (start..=end).rev().find(|end| short.is_char_boundary(*end)).unwrap_or(start);
    (short, start..end)
}

/// A range inside the text that stays on its first line, so that a caret stands under one line only.
fn clip(text: &str, range: Range<usize>) -> Range<usize> {
    let start = range.start.min(text.len());
    let end = range.end.min(text.len());
    let line_end = text[start..].find('\n').map_or(text.len(), |n| start + n);
    let end = end.min(line_end).max(start);
    // A trailing blank under the caret only looks like a mistake.
    start..start + text[start..end].trim_end().len()
}

/// Without the margins of the renderer: no leading blank line, no blanks at line ends.
fn tidy(drawn: &str) -> String {
    let lines: Vec<&str> = drawn.lines().map(str::trim_end).collect();
    let indent = lines.iter().filter(|l| !l.is_empty()).map(|l| l.len() - l.trim_start().len()).min().unwrap_or(0);
    let lines: Vec<&str> = lines.iter().map(|l| l.get(indent..).unwrap_or("")).collect();
    let words = [" error:", " warning:", " help:"];
    let lines: Vec<&str> =
        lines.into_iter().map(|l| if words.iter().any(|w| l.starts_with(w)) { &l[1..] } else { l }).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}
