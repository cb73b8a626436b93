//! The live screen: phase, uploads, the resource tree, the endpoint's stage and the container's last line, redrawn in
//! place on stderr. The only importer of indicatif. What is drawn is made by a pure function of the board and the
//! terminal's size; indicatif puts it there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::board::{Board, ResourceState, TaskState};
use super::lines::{Clock, amount, clean};
use super::units::time;
use super::{Event, Reporter};

/// Redraws per second: elapsed times change once a second, bytes look live at four.
const REDRAW: Duration = Duration::from_millis(250);
/// Smaller terminals get what fits.
const MIN_WIDTH: usize = 20;

/// The live screen.
pub struct Screen {
    clock: Clock,
    colour: bool,
    bars: MultiProgress,
    body: ProgressBar,
    size: Box<dyn Fn() -> (usize, usize) + Send + Sync>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    board: Board,
    finished: bool,
}

impl Screen {
    /// A screen on stderr that redraws itself for as long as anybody holds it. `size` is the terminal's columns and
    /// rows now.
    pub fn start(clock: Clock, colour: bool, size: Box<dyn Fn() -> (usize, usize) + Send + Sync>) -> Arc<Self> {
        let screen = Arc::new(Self::new(clock, colour, size, ProgressDrawTarget::stderr()));
        let weak = Arc::downgrade(&screen);
        // Without the thread the screen moves with events only, which is a pity but no reason to fail.
        let _ = std::thread::Builder::new().name("screen".into()).spawn(move || {
            loop {
                std::thread::sleep(REDRAW);
                match weak.upgrade() {
                    Some(screen) if !screen.lock().finished => screen.redraw(),
                    _ => break,
                }
            }
        });
        screen
    }

    fn new(
        clock: Clock,
        colour: bool,
        size: Box<dyn Fn() -> (usize, usize) + Send + Sync>,
        target: ProgressDrawTarget,
    ) -> Self {
        let bars = MultiProgress::with_draw_target(target);
        let body = bars.add(ProgressBar::new_spinner());
        body.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Screen { clock, colour, bars, body, size, state: Mutex::default() }
    }

    /// Runs something that writes to the terminal, with the screen out of the way.
    pub fn suspend<R>(&self, f: impl FnOnce() -> R) -> R {
        self.bars.suspend(f)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn redraw(&self) {
        let (width, height) = (self.size)();
        let drawn = {
            let state = self.lock();
            if state.finished {
                return;
            }
            draw(&state.board, (self.clock)(), width, height, self.colour).join("\n")
        };
        self.body.set_message(drawn);
    }

    fn above(&self, text: &str) {
        // Fails only if stderr does; there is nobody left to tell.
        let _ = self.bars.println(text);
    }
}

impl Reporter for Screen {
    fn report(&self, event: Event) {
        let now = (self.clock)();
        let mut redraw = true;
        let above = {
            let mut state = self.lock();
            if state.finished {
                return;
            }
            let changed = state.board.apply(&event, now);
            match event {
                Event::Note(text) => Some(format!("note: {text}")),
                Event::Warning(text) => Some(self.paint(YELLOW, &format!("warning: {text}"))),
                Event::Resource { logical_id, status, reason: Some(reason), .. }
                    if changed && status.ends_with("_FAILED") =>
                {
                    Some(self.paint(RED, &format!("{logical_id} {status}: {}", clean(&reason))))
                }
                // The thread redraws these; a redraw per part of an upload would be work for nothing.
                Event::Bytes { .. } | Event::Line { .. } | Event::Container(_) => {
                    redraw = false;
                    None
                }
                _ => None,
            }
        };
        if let Some(text) = above {
            self.above(&text);
        }
        if redraw {
            self.redraw();
        }
    }

    fn finish(&self) {
        let summary = {
            let mut state = self.lock();
            if state.finished {
                return;
            }
            state.finished = true;
            summary(&state.board, (self.clock)())
        };
        self.body.finish_and_clear();
        for line in summary {
            self.above(&line);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.finish();
    }
}

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const RESET: &str = "\x1b[0m";

impl Screen {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("{code}{text}{RESET}") } else { text.to_owned() }
    }
}

/// A line as text and colour; the colour comes last, so that cutting never cuts a code.
struct Row(String, &'static str);

/// The screen's lines: at most `height - 1` of at most `width - 1` columns, so that nothing wraps or scrolls.
fn draw(board: &Board, now: Duration, width: usize, height: usize, colour: bool) -> Vec<String> {
    let width = width.max(MIN_WIDTH) - 1;
    let room = height.max(2) - 1;
    let mut rows: Vec<Row> = Vec::new();
    if let Some((phase, since)) = &board.phase {
        rows.push(Row(spread(phase, &time(now.saturating_sub(*since)), width), BOLD));
    }
    rows.extend(board.tasks.iter().map(|task| task_row(task, now, width)));
    let mut tail: Vec<Row> = Vec::new();
    if let Some(endpoint) = &board.endpoint {
        let stage = endpoint.stage.as_ref().map(|s| format!(", {s}")).unwrap_or_default();
        let left = format!("endpoint {}: {}{stage}", endpoint.name, endpoint.status);
        let code = if endpoint.status == "InService" { GREEN } else { YELLOW };
        tail.push(Row(spread(&left, &time(now.saturating_sub(endpoint.since)), width), code));
    }
    let line = board.container.as_ref().map(|line| format!("container: {}", clean(line)));
    let line = line.or_else(|| {
        let task = board.tasks.iter().rev().find(|t| t.summary.is_none() && t.line.is_some())?;
        Some(format!("{}: {}", task.task.word(), clean(task.line.as_ref()?)))
    });
    tail.extend(line.map(|line| Row(line, DIM)));
    let left = room.saturating_sub(rows.len() + tail.len());
    rows.extend(resource_rows(&board.resources, now, width, left));
    rows.extend(tail);
    rows.truncate(room);
    rows.into_iter()
        .map(|Row(text, code)| {
            let text = cut(&text, width);
            if colour && !code.is_empty() { format!("{code}{text}{RESET}") } else { text }
        })
        .collect()
}

fn task_row(task: &TaskState, now: Duration, width: usize) -> Row {
    let name = format!("{:<9}", task.task.word());
    if let Some(summary) = &task.summary {
        return Row(format!("{name}{summary}"), GREEN);
    }
    let amount =
        if task.done == 0 && task.total.is_none() { time(now.saturating_sub(task.since)) } else { amount(task) };
    match task.percent() {
        Some(percent) if width >= 60 => {
            let cells = (width - name.len() - 2).saturating_sub(amount.chars().count() + 1).min(30);
            let full = cells * percent as usize / 100;
            Row(format!("{name}[{}{}] {amount}", "#".repeat(full), ".".repeat(cells - full)), "")
        }
        _ => Row(spread(&format!("{name}{}", task.label), &amount, width), ""),
    }
}

/// The resource tree: each stack's name, its resources below. Without room for all, what moves and what failed
/// comes first, and the rest is counted.
fn resource_rows(resources: &[ResourceState], now: Duration, width: usize, room: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    // The stack is its own first resource; its status belongs into its headline.
    let (whole, resources): (Vec<&ResourceState>, Vec<&ResourceState>) = resources.iter().partition(|r| r.is_stack());
    if resources.is_empty() || room < 2 {
        return rows;
    }
    let mut stacks: Vec<&str> = Vec::new();
    for resource in &resources {
        if !stacks.contains(&resource.stack.as_str()) {
            stacks.push(&resource.stack);
        }
    }
    let fits = resources.len() + stacks.len() <= room;
    let shown: Vec<&ResourceState> = if fits {
        resources.clone()
    } else {
        let keep = room.saturating_sub(stacks.len() + 1);
        let mut order: Vec<usize> = (0..resources.len()).collect();
        order.sort_by_key(|n| {
            let r = resources[*n];
            (!r.failed(), !r.moving(), std::cmp::Reverse(r.changed))
        });
        order.truncate(keep);
        order.sort_unstable();
        order.into_iter().map(|n| resources[n]).collect()
    };
    let status_width = shown.iter().map(|r| r.status.len()).max().unwrap_or(0);
    let id_width = shown.iter().map(|r| r.logical_id.len()).max().unwrap_or(0).min(width / 2);
    for stack in stacks {
        let of: Vec<_> = shown.iter().filter(|r| r.stack == stack).collect();
        let all = resources.iter().filter(|r| r.stack == stack);
        let (done, total) = (all.clone().filter(|r| !r.moving()).count(), all.count());
        let status = whole.iter().find(|r| r.stack == stack).map(|r| format!(": {}", r.status)).unwrap_or_default();
        let counted = format!("{done} of {total} done");
        rows.push(Row(spread(&format!("stack {stack}{status}"), &counted, width), BOLD));
        for resource in of {
            let code = match (resource.failed(), resource.moving()) {
                (true, _) => RED,
                (_, true) => YELLOW,
                _ => GREEN,
            };
            // The type says little that the logical id does not; it goes first where columns are few.
            let kind = if width >= 76 { resource.kind.strip_prefix("AWS::").unwrap_or(&resource.kind) } else { "" };
            let id = cut(&resource.logical_id, id_width);
            let left = format!("  {id:<id_width$}  {:<status_width$}  {kind}", resource.status);
            rows.push(Row(spread(left.trim_end(), &time(resource.elapsed(now)), width), code));
        }
    }
    if !fits {
        let hidden = resources.len() - shown.len();
        rows.push(Row(format!("  and {hidden} more, not moving"), DIM));
    }
    rows.truncate(room);
    rows
}

/// What stays on the terminal.
fn summary(board: &Board, now: Duration) -> Vec<String> {
    let mut lines: Vec<String> = board
        .tasks
        .iter()
        .filter_map(|t| t.summary.as_ref().map(|summary| format!("{:<9}{summary}", t.task.word())))
        .collect();
    let resources: Vec<&ResourceState> = board.resources.iter().filter(|r| !r.is_stack()).collect();
    if !resources.is_empty() {
        let failed = resources.iter().filter(|r| r.failed()).count();
        let moving = resources.iter().filter(|r| r.moving()).count();
        let mut text = format!(
            "{:<9}{} resources in {}",
            "stacks",
            resources.len(),
            time(now.saturating_sub(resources.iter().map(|r| r.since).min().unwrap_or(now)))
        );
        if failed > 0 {
            text.push_str(&format!(", {failed} failed or rolled back"));
        }
        if moving > 0 {
            text.push_str(&format!(", {moving} still moving"));
        }
        lines.push(text);
    }
    // A good endpoint is told in the result; one that is not must not be missed.
    if let Some(endpoint) = board.endpoint.as_ref().filter(|e| e.status != "InService") {
        lines.push(format!("{:<9}{} {}", "endpoint", endpoint.name, endpoint.status));
    }
    lines
}

/// Left and right text with blanks between; the left one gives way.
fn spread(left: &str, right: &str, width: usize) -> String {
    let room = width.saturating_sub(columns(right) + 1);
    let left = cut(left, room);
    let gap = width.saturating_sub(columns(&left) + columns(right)).max(1);
    format!("{left}{}{right}", " ".repeat(gap))
}

/// The text, cut to so many columns, with `~` where something is missing.
fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut used = 0;
    for c in text.chars() {
        let w = column(c);
        if used + w + 1 > width {
            break;
        }
        cut.push(c);
        used += w;
    }
    if width > 0 {
        cut.push('~');
    }
    cut
}

fn columns(text: &str) -> usize {
    text.chars().map(column).sum()
}

/// Columns of a character: two for East Asian wide ranges and emoji, none for combining marks.
fn column(c: char) -> usize {
    match u32::from(c) {
        0x0300..=0x036f | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff00..=0xff60 => 2,
        0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests;
