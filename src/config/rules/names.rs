//! Names that are composed of several values, and maps whose entries have limits in bytes.

use crate::config::Config;
use crate::config::problem::Problem;
use crate::config::tree::Path;

/// SageMaker's limit on the names of models, endpoint configs and endpoints.
const NAME_MAX: usize = 63;
/// What the tool adds to `<stack>-<label>`: `-<8 hex>-<record number up to 5 digits>`.
const SUFFIX: usize = 1 + 8 + 1 + 5;
/// SageMaker's limit on a value in a model's environment, in bytes.
const ENVIRONMENT_VALUE_MAX: usize = 1024;
/// The limit of a tag's value.
const TAG_VALUE_MAX: usize = 256;

/// The longest label that a stack's name leaves room for.
pub fn label_max(stack: &str) -> usize {
    NAME_MAX.saturating_sub(stack.len() + 1 + SUFFIX)
}

pub(super) fn check(config: &Config, environment: Option<&str>, problems: &mut Vec<Problem>) {
    let stack = environment.map_or_else(|| config.app.clone(), |env| format!("{}-{env}", config.app));
    let label = &config.models.version;
    let max = label_max(&stack);
    if max == 0 {
        problems.push(
            Problem::error(Path::of("app"), format!("`{stack}` is {} characters, too long for a stack", stack.len()))
                .label("too long with the environment's name")
                .help(format!(
                    "Allowed: at most {} characters, so that the names of models fit into SageMaker's {NAME_MAX}.",
                    NAME_MAX - SUFFIX - 2
                )),
        );
    } else if label.len() > max {
        problems.push(
            Problem::error(Path::of("models.version"), format!("`models.version` is {} characters, too long", label.len()))
                .label(format!("at most {max}"))
                .help(format!(
                    "Allowed: at most {max} characters. The model's name is {stack}-<label>-<hash>-<number>, and SageMaker allows {NAME_MAX} in all."
                )),
        );
    }
    for (key, value) in &config.endpoint.environment {
        if value.len() > ENVIRONMENT_VALUE_MAX {
            let path = Path::of("endpoint.environment").key(key);
            problems.push(
                Problem::error(path.clone(), format!("`{path}` has {} bytes", value.len()))
                    .label("too long")
                    .help(format!("Allowed: at most {ENVIRONMENT_VALUE_MAX} bytes. Put larger things into the image or the models.")),
            );
        }
    }
    for (key, value) in &config.tags {
        let path = Path::of("tags").key(key);
        if key.to_ascii_lowercase().starts_with("aws:") {
            problems.push(
                Problem::error(path.clone(), format!("the tag `{key}` begins with `aws:`"))
                    .on_key()
                    .label("reserved")
                    .help("AWS keeps this prefix for itself. Choose another."),
            );
        }
        if value.chars().count() > TAG_VALUE_MAX {
            problems.push(
                Problem::error(path.clone(), format!("`{path}` has {} characters", value.chars().count()))
                    .label("too long")
                    .help(format!("Allowed: at most {TAG_VALUE_MAX} characters.")),
            );
        }
    }
}
