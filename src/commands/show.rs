//! A plan as text. Pure.

use std::fmt::Write;

use crate::error::Look;
use crate::plan::{ImagePlan, ModelPlan, Plan, Step, StepKind};
pub use crate::progress::units::bytes as size;
use crate::stack::Action;

/// A size that may be less.
pub fn limit(bytes: u64, at_most: bool) -> String {
    if at_most { format!("at most {}", size(bytes)) } else { size(bytes) }
}

/// What `plan` prints and `up` shows before it asks, in lines of at most `look.width` columns.
pub fn plan(plan: &Plan, look: Look) -> String {
    let mut out = String::new();
    let t = &plan.target;
    let _ = writeln!(out, "Plan for {} in account {}, {}\n", t.stack, t.account, t.region);
    match &plan.image {
        ImagePlan::Keep => {}
        ImagePlan::Prebuilt { given, uri } => {
            row(&mut out, "image", &format!("as given, {}", short(given)));
            if let Some((_, digest)) = uri.rsplit_once('@').filter(|_| given != uri) {
                row(&mut out, "", &format!("which is {} now", short(digest)));
            }
        }
        ImagePlan::Present { tag, .. } => row(&mut out, "image", &format!("unchanged, {}:{tag}", t.repository)),
        ImagePlan::Build { tag, instead_of } => {
            row(&mut out, "image", &format!("build and push {}:{tag}", t.repository));
            if let Some(digest) = instead_of {
                row(&mut out, "", &format!("the present one stays as {}", crate::container::earlier_tag(tag, digest)));
            }
        }
    }
    match &plan.model {
        ModelPlan::Keep => {}
        ModelPlan::External { bucket, key } => row(&mut out, "model", &format!("as given, s3://{bucket}/{key}")),
        ModelPlan::Present { bytes, at_most, key, .. } => {
            let key = key.trim_end_matches("/model.tar.gz");
            row(&mut out, "model", &format!("unchanged, {} in {key}", limit(*bytes, *at_most)));
        }
        ModelPlan::Upload { bytes, at_most, files, key, .. } => {
            let (key, size) = (key.trim_end_matches("/model.tar.gz"), limit(*bytes, *at_most));
            row(&mut out, "model", &format!("upload {size} ({files} {}) to {key}", plural(*files, "file")));
        }
    }
    if let Some(f) = &plan.function {
        let what = if f.upload { "upload" } else { "unchanged," };
        row(&mut out, "function", &format!("{what} {}", size(f.bytes)));
    }
    for step in plan.foundation.iter().chain(&plan.service) {
        out.push('\n');
        self::step(&mut out, step, look);
    }
    for p in &plan.protection {
        let _ = writeln!(out, "\n  stack {}: termination protection {}", p.stack, if p.on { "on" } else { "off" });
    }
    if let Some(g) = &plan.growth {
        let instances = plural(g.instances.unsigned_abs() as usize, "instance");
        let first = plan.service.last().is_some_and(|s| s.kind != StepKind::Update);
        let why = if first { "" } else { ", beside those that run until it serves" };
        let starts = format!("Starts {} {} {instances}{why}.", g.instances, g.instance_type);
        let has = if g.instances == 1 { "It has" } else { "Each has" };
        let each = g
            .download_timeout
            .map_or(String::new(), |seconds| format!(" {has} {seconds} s to download and extract the models."));
        let _ = writeln!(out, "\n{}", wrap(&format!("{starts}{each}"), usize::from(look.width)));
    }
    for note in &plan.notes {
        let _ = writeln!(out, "\n{}", wrap(&format!("Note: {note}"), usize::from(look.width)));
    }
    out
}

fn row(out: &mut String, what: &str, value: &str) {
    let _ = writeln!(out, "  {what:<9} {value}");
}

fn step(out: &mut String, step: &Step, look: Look) {
    let verb = match step.kind {
        StepKind::Create => "create",
        StepKind::Recreate => "delete and create again",
        StepKind::Update => "update",
        StepKind::Attach => "follow the operation that is under way",
    };
    let _ =
        writeln!(out, "{}", wrap(&format!("  stack {}: {verb} ({})", step.stack, step.title), usize::from(look.width)));
    let ids = step.changes.iter().map(|c| c.logical_id.len()).max().unwrap_or(0);
    for c in &step.changes {
        let kind = c.kind.strip_prefix("AWS::").unwrap_or(&c.kind);
        let (sign, tail) = match c.action {
            Action::Add => ("+", String::new()),
            Action::Modify => ("~", String::new()),
            Action::Replace if look.unicode => ("±", " replaced".into()),
            Action::Replace => ("!", " replaced".into()),
            Action::Remove => ("-", if c.retained { " left standing".into() } else { " removed".into() }),
        };
        let _ = writeln!(out, "    {sign} {:<ids$}  {kind}{tail}", c.logical_id);
        if matches!(c.action, Action::Modify | Action::Replace) {
            let properties = wrap(&c.properties.join(", "), usize::from(look.width).saturating_sub(8).max(20));
            for line in properties.lines() {
                let _ = writeln!(out, "        {line}");
            }
        }
    }
}

/// `sha256:` digests cut to twelve digits, as container tools show them.
pub fn short(text: &str) -> String {
    match text.split_once("sha256:") {
        Some((before, hex)) if hex.len() > 12 => format!("{before}sha256:{}", hex.get(..12).unwrap_or(hex)),
        _ => text.to_owned(),
    }
}

/// Breaks at blanks; a longer word stays whole. Leading blanks stay in front of every line.
fn wrap(text: &str, width: usize) -> String {
    let lead = &text[..text.len() - text.trim_start().len()];
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(&format!("{lead}{word}")),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push_str(&format!(" {word}"))
            }
            _ => lines.push(format!("{lead}{word}")),
        }
    }
    lines.join("\n")
}

fn plural(n: usize, word: &str) -> String {
    if n == 1 { word.to_owned() } else { format!("{word}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan;
    use crate::plan::tests::{another_model, deployed, empty, local, settings};

    #[test]
    fn lines_break_at_blanks_and_digests_are_short() {
        assert_eq!(wrap("  one two three", 9), "  one two\n  three");
        assert_eq!(wrap("a-word-that-is-long b", 5), "a-word-that-is-long\nb");
        assert_eq!(short("comfy@sha256:0123456789abcdef"), "comfy@sha256:0123456789ab");
        assert_eq!(short("comfy:v1"), "comfy:v1");
    }

    /// The plan as a terminal of 80 columns shows it.
    fn shown(plan: &Plan) -> String {
        let text = super::plan(plan, Look { width: 80, ..Look::PLAIN });
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "too wide: {line}");
        }
        text
    }

    #[test]
    fn a_first_deployment() {
        let plan = plan::up(&settings("autoscaling: {enabled: true}"), &local(), &empty()).expect("a plan");
        insta::assert_snapshot!(shown(&plan));
    }

    #[test]
    fn a_new_model() {
        let settings = settings("protect: true");
        let mut world = deployed(&settings, &local());
        world.model_present = false;
        let mut changed = local();
        changed.model = another_model(7_100_000_000, 3);
        insta::assert_snapshot!(shown(&plan::up(&settings, &changed, &world).expect("a plan")));
    }

    #[test]
    fn another_instance_type_under_autoscaling() {
        let world = deployed(&settings("autoscaling: {enabled: true}"), &local());
        let after = settings("autoscaling: {enabled: true}\nendpoint: {instance_type: ml.g6.xlarge}");
        insta::assert_snapshot!(shown(&plan::up(&after, &local(), &world).expect("a plan")));
    }
}
