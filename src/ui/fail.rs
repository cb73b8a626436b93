//! A failure as text: what happened, why, what AWS said, what to type next.

use anstyle::AnsiColor;

use super::paint;
use crate::error::{Error, Look};

/// The error as stderr shows it.
pub fn error_text(error: &Error, look: Look) -> String {
    let red = AnsiColor::Red.on_default().bold();
    let cyan = AnsiColor::Cyan.on_default().bold();
    let mut lines = Vec::new();
    match error.drawn(look) {
        Some(drawn) => lines.push(drawn),
        None => {
            lines.push(format!("{} {}", paint(look.colour, red, "error:"), error.what()));
            lines.extend(error.reasons().iter().map(|why| indent(why, "  ")));
        }
    }
    if let Some(service) = error.aws() {
        let mut said = format!("{}: {} ({})", service.operation, service.message.trim(), service.code);
        if let Some(id) = &service.request_id {
            said.push_str(&format!("\nrequest id {id}"));
        }
        lines.push(indent(&said, "  "));
    }
    if let Some(next) = error.hint() {
        lines.push(format!("{} {}", paint(look.colour, cyan, "next:"), next.trim_end()));
    }
    lines.join("\n")
}

fn indent(text: &str, with: &str) -> String {
    let indented =
        text.trim_end().lines().map(|line| if line.is_empty() { String::new() } else { format!("{with}{line}") });
    indented.collect::<Vec<_>>().join("\n")
}
