//! A plan as text. Pure.

use std::fmt::Write;

use crate::plan::{ImagePlan, ModelPlan, Plan, Step, StepKind};
use crate::stack::Action;

/// What `plan` prints and `up` shows before it asks.
pub fn plan(plan: &Plan) -> String {
    let mut out = String::new();
    let t = &plan.target;
    let _ = writeln!(out, "Plan for {} in account {}, {}\n", t.stack, t.account, t.region);
    match &plan.image {
        ImagePlan::Keep => {}
        ImagePlan::Prebuilt { given, .. } => row(&mut out, "image", &format!("as given: {given}")),
        ImagePlan::Present { tag, .. } => row(&mut out, "image", &format!("unchanged, {}:{tag}", t.repository)),
        ImagePlan::Build { tag, .. } => row(&mut out, "image", &format!("build and push {}:{tag}", t.repository)),
    }
    match &plan.model {
        ModelPlan::Keep => {}
        ModelPlan::External { bucket, key } => row(&mut out, "model", &format!("as given: s3://{bucket}/{key}")),
        ModelPlan::Present { bytes, key, .. } => {
            row(&mut out, "model", &format!("unchanged, {} in {key}", size(*bytes)))
        }
        ModelPlan::Upload { bytes, files, key, .. } => {
            row(&mut out, "model", &format!("upload {} ({files} {}) to {key}", size(*bytes), plural(*files, "file")));
        }
    }
    if let Some(f) = &plan.function {
        let what = if f.upload { format!("upload {}", size(f.bytes)) } else { format!("unchanged, {}", size(f.bytes)) };
        row(&mut out, "function", &what);
    }
    for step in plan.foundation.iter().chain(&plan.service) {
        out.push('\n');
        self::step(&mut out, step);
    }
    for p in &plan.protection {
        let _ = writeln!(out, "\n  stack {}: termination protection {}", p.stack, if p.on { "on" } else { "off" });
    }
    if let Some(g) = &plan.growth {
        let _ = writeln!(
            out,
            "\nNeeds {} more {} while it runs.",
            g.instances,
            plural(g.instances.unsigned_abs() as usize, &format!("{} instance", g.instance_type))
        );
    }
    for note in &plan.notes {
        let _ = writeln!(out, "\nNote: {note}");
    }
    out
}

fn row(out: &mut String, what: &str, value: &str) {
    let _ = writeln!(out, "  {what:<9} {value}");
}

fn step(out: &mut String, step: &Step) {
    let verb = match step.kind {
        StepKind::Create => "create",
        StepKind::Recreate => "delete and create again",
        StepKind::Update => "update",
        StepKind::Attach => "follow the operation that is under way",
    };
    let _ = writeln!(out, "  stack {}: {verb} ({})", step.stack, step.title);
    for c in &step.changes {
        let (sign, tail) = match c.action {
            Action::Add => ("+", String::new()),
            Action::Modify => ("~", c.properties.join(", ")),
            Action::Replace => ("±", format!("replaced: {}", c.properties.join(", "))),
            Action::Remove => ("-", if c.retained { "left standing".into() } else { "removed".into() }),
        };
        let line = format!("    {sign} {:<29} {:<44} {tail}", c.logical_id, c.kind);
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

fn plural(n: usize, word: &str) -> String {
    if n == 1 { word.to_owned() } else { format!("{word}s") }
}

/// Bytes as people say them, decimal as disks and S3's price list count.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit < UNITS.len() - 1 {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_say_them() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1000), "1.0 kB");
        assert_eq!(size(301_234_567), "301.2 MB");
        assert_eq!(size(50_000_000_000_000), "50.0 TB");
    }
}
