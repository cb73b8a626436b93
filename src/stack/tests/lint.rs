use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::*;

/// One rendered combination.
struct Combination {
    name: String,
    settings: Settings,
}

/// Autoscaling off, without policy, with policy; no, one and three schedules; each kind of URL, a buffered one and no function;
/// with and without VPC; both packagings. Schedules with autoscaling off are no valid config.
fn combinations() -> Vec<Combination> {
    let mut all = Vec::new();
    let schedule = |n: usize| -> String {
        (0..n)
            .map(|i| {
                format!(
                    "{{name: s{i}, when: 'cron({i} 8 ? * MON-FRI *)', timezone: Europe/Berlin, min: 1, max: {}}},",
                    i + 2
                )
            })
            .collect()
    };
    for (scaling, count) in [("off", 0), ("none", 0), ("none", 1), ("none", 3), ("1.0", 0), ("1.0", 1), ("1.0", 3)] {
        for url in ["aws_iam", "buffered", "none", "off", "disabled"] {
            for vpc in [false, true] {
                for packaging in ["tar", "uncompressed"] {
                    let autoscaling = match scaling {
                        "off" => "{enabled: false}".to_owned(),
                        target => format!("{{enabled: true, target: {target}, schedule: [{}]}}", schedule(count)),
                    };
                    let lambda = match url {
                        "disabled" => "{enabled: false}".to_owned(),
                        "buffered" => "{url_mode: buffered}".to_owned(),
                        url => format!("{{url: {url}}}"),
                    };
                    let vpc_config = if vpc {
                        "vpc: {subnets: [subnet-0a1b2c3d4e5f60718, subnet-0a1b2c3d4e5f60719], security_groups: [sg-0a1b2c3d4e5f60718]}, environment: {A: '1'}"
                    } else {
                        ""
                    };
                    all.push(Combination {
                        name: format!("scaling-{scaling}-schedule-{count}-url-{url}-vpc-{vpc}-{packaging}"),
                        settings: settings(&format!(
                            "autoscaling: {autoscaling}\nlambda: {lambda}\nmodels: {{packaging: {packaging}}}\nendpoint: {{{vpc_config}}}"
                        )),
                    });
                }
            }
        }
    }
    all
}

#[test]
fn every_combination_evaluates_and_fits() {
    let combinations = combinations();
    assert_eq!(combinations.len(), 7 * 5 * 2 * 2);
    for Combination { name, settings } in combinations {
        let rendered = service(&settings);
        assert!(rendered.body.len() <= MAX_BODY, "{name}");
        let evaluated =
            evaluate(&rendered.value, &parameters(&settings), &pseudo()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            evaluated.resources.contains_key(ids::SCALABLE_TARGET),
            settings.config.autoscaling.enabled,
            "{name}"
        );
    }
}

/// Writes every combination, its parameters and the table of create-only properties into the directory that
/// COMFY_DEPLOY_RENDER_DIR names, for `tests/lint-templates`. Without it there is nothing to write.
#[test]
fn write_every_combination() {
    let Some(directory) = std::env::var_os("COMFY_DEPLOY_RENDER_DIR").map(PathBuf::from) else { return };
    let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
    for Combination { name, settings } in combinations() {
        write(&format!("{name}.yaml"), &service(&settings).body);
        write(&format!("{name}.parameters.json"), &json!(parameters(&settings)).to_string());
    }
    for (name, storage) in [("made", ""), ("adopted", "storage: {bucket: shared-artifacts}")] {
        let settings = settings(storage);
        write(&format!("foundation-{name}.yaml"), &foundation(&settings).body);
        write(
            &format!("foundation-{name}.parameters.json"),
            &json!(foundation_parameters(&settings, ACCOUNT)).to_string(),
        );
    }
    let table: serde_json::Map<String, Value> = CREATE_ONLY.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    write("create-only.json", &Value::Object(table).to_string());
}
