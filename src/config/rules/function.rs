//! The function and its URL.

use super::{Path, Problem};
use crate::config::{Config, UrlAuth};

/// Regions without Function URLs (Lambda developer guide, "Creating and managing Lambda function URLs"). A list of
/// those that do not stream responses is not published.
const WITHOUT_URLS: [&str; 7] =
    ["ap-south-2", "ap-southeast-4", "ca-west-1", "eu-central-2", "eu-south-2", "il-central-1", "me-central-1"];

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let Some(region) = config.region.as_deref() else { return };
    let has_url = config.lambda.enabled && config.lambda.url != UrlAuth::Off;
    if has_url && WITHOUT_URLS.contains(&region) {
        problems.push(
            Problem::warning(Path::of("lambda.url"), format!("{region} had no Function URLs when this was built"))
                .label(format!("maybe not in {region}"))
                .help(
                    "If AWS refuses it, set `lambda.url: off` and call the endpoint with `comfy-deploy invoke --direct`, \
                     or choose another region.",
                ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::settings;

    #[test]
    fn a_region_without_urls_is_a_warning_unless_there_is_none() {
        let found = |region: &str, more: &str| {
            let mut config = settings(more).config;
            config.region = Some(region.to_owned());
            let mut problems = Vec::new();
            check(&config, &mut problems);
            problems.len()
        };
        assert_eq!(found("eu-south-2", ""), 1);
        assert_eq!(found("eu-south-2", "lambda: {url: off}"), 0);
        assert_eq!(found("eu-south-2", "lambda: {enabled: false}"), 0);
        assert_eq!(found("eu-west-1", ""), 0);
    }
}
