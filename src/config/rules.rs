//! Rules that one value alone cannot break: lengths of composed names, a minimum above a maximum, a schedule without
//! autoscaling, a volume where the disk is local. Pure: a config in, problems out.

mod artifacts;
pub mod cron;
mod function;
pub mod instances;
mod names;
mod scaling;

use super::Config;
use super::problem::Problem;
use super::tree::{Node, Origin, Path};
use super::{check, schema};

/// What the name of an environment looks like.
pub const ENVIRONMENT_PATTERN: &str = "^[a-z0-9]+(-[a-z0-9]+)*$";
/// The same in words.
pub const ENVIRONMENT_ALLOWED: &str = "Allowed: lower-case letters and digits, with single hyphens between them.";

/// Every problem of a config that was made or changed in memory: the schema's rules and the ones below.
pub fn validate(config: &Config, environment: Option<&str>) -> Vec<Problem> {
    let Ok(json) = serde_json::to_value(config) else {
        return vec![Problem::error(Path::default(), "the config cannot be written as JSON")];
    };
    let mut tree = Node::from_json(&json);
    tree.take("environments");
    let mut problems = check::read(&tree, schema::schema(), false).1;
    problems.extend(rules(config, environment));
    problems
}

/// The rules that the schema cannot express.
pub fn rules(config: &Config, environment: Option<&str>) -> Vec<Problem> {
    let mut problems = Vec::new();
    names::check(config, environment, &mut problems);
    instances::check(config, &mut problems);
    scaling::check(config, &mut problems);
    function::check(config, &mut problems);
    artifacts::check(config, &mut problems);
    problems
}

/// Finds where in the tree a problem's path stands, or the nearest section that does.
pub fn locate(tree: &Node, problem: Problem) -> Problem {
    let found = tree.locate(&problem.path);
    let origin = match (problem.on_key || !found.found, found.key) {
        (true, Some(key)) => key.clone(),
        _ => found.node.origin.clone(),
    };
    let whole_file = !found.found && found.key.is_none();
    if whole_file { problem.at(Origin::Memory) } else { problem.at(origin) }
}
