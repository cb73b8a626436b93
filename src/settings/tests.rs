use std::collections::HashMap;
use std::path::Path;

use clap::Parser;

use super::*;
use crate::cli::Cli;
use crate::error::Result;

const HEAD: &str = "version: 1\napp: comfy\n";

/// The settings of a command line in a directory with a config file.
fn decide(file: &str, args: &[&str], vars: &[(&str, &str)]) -> (tempfile::TempDir, Result<Settings>) {
    let dir = tempfile::tempdir().expect("dir");
    std::fs::write(dir.path().join("comfy-deploy.yaml"), file).expect("write");
    let settings = decide_in(dir.path(), args, vars);
    (dir, settings)
}

fn decide_in(cwd: &Path, args: &[&str], vars: &[(&str, &str)]) -> Result<Settings> {
    let cli = Cli::try_parse_from([&["comfy-deploy"], args].concat()).unwrap_or_else(|e| panic!("{e}"));
    let vars: HashMap<String, String> = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let env = |name: &str| vars.get(name).cloned();
    let profile_region = |name: &str| (name == "work").then(|| "ap-south-1".to_owned());
    resolve(&cli, &Ambient { env: &env, cwd, profile_region: &profile_region })
}

#[test]
fn the_region_comes_from_the_nearest_source() {
    let file = "version: 1\napp: comfy\nregion: eu-west-1\n";
    let all = [
        ("COMFY_DEPLOY_REGION", "eu-west-2"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_DEFAULT_REGION", "us-east-2"),
        ("AWS_PROFILE", "work"),
    ];
    let region = |file: &str, args: &[&str], vars: &[(&str, &str)]| {
        let settings = decide(file, args, vars).1.expect("settings");
        (settings.region.clone(), settings.origin("region").to_owned())
    };
    let is = |region: &str, origin: &str| (region.to_owned(), origin.to_owned());
    assert_eq!(region(file, &["plan", "--region", "eu-west-3"], &all), is("eu-west-3", "--region"));
    assert_eq!(region(file, &["plan"], &all), is("eu-west-2", "COMFY_DEPLOY_REGION"));
    assert_eq!(region(file, &["plan"], &all[1..]), is("eu-west-1", "comfy-deploy.yaml:3"));
    assert_eq!(region(HEAD, &["plan"], &all[1..]), is("us-east-1", "AWS_REGION"));
    assert_eq!(region(HEAD, &["plan"], &all[2..]), is("us-east-2", "AWS_DEFAULT_REGION"));
    assert_eq!(region(HEAD, &["plan"], &all[3..]), is("ap-south-1", "profile work"));
    assert_eq!(region(HEAD, &["plan", "--sandbox"], &[]), is("us-east-1", "--sandbox"));
    let error = decide(HEAD, &["plan"], &[]).1.expect_err("no region");
    assert_eq!((error.kind(), error.what()), (crate::error::Kind::Usage, "there is no region"));
}

#[test]
fn flags_stand_over_variables_over_the_file() {
    let file = "version: 1\napp: comfy\nregion: eu-west-1\nendpoint:\n  instance_type: ml.g5.xlarge\n";
    let vars =
        [("COMFY_DEPLOY_INSTANCE_TYPE", "ml.g5.2xlarge"), ("COMFY_DEPLOY_TIMEOUT", "5m"), ("COMFY_DEPLOY_YES", "1")];
    let (_dir, by_variable) = decide(file, &["up"], &vars);
    let by_variable = by_variable.expect("settings");
    assert_eq!(by_variable.config.endpoint.instance_type, "ml.g5.2xlarge");
    assert_eq!(by_variable.timeout, Duration::from_secs(300));
    assert!(by_variable.yes);
    let (dir, by_flag) = decide(
        file,
        &["up", "--instance-type", "ml.g5.4xlarge", "--timeout", "1h", "--wait-lock", "--models", "m"],
        &vars,
    );
    let by_flag = by_flag.expect("settings");
    assert_eq!(by_flag.config.endpoint.instance_type, "ml.g5.4xlarge");
    assert_eq!((by_flag.timeout, by_flag.wait_lock), (Duration::from_secs(3600), Some(Duration::from_secs(600))));
    assert_eq!(Path::new(&by_flag.config.models.dir), dir.path().join("m"));
    assert_eq!(by_flag.origin("endpoint.instance_type"), "--instance-type");
}

#[test]
fn the_sandbox_is_on_this_machine_only() {
    let file = "version: 1\napp: comfy\n";
    for url in ["http://127.0.0.1:4599", "http://localhost:1", "http://[::1]:4599", ""] {
        let settings = decide(file, &["plan"], &[("COMFY_DEPLOY_SANDBOX", if url.is_empty() { "1" } else { url })]).1;
        assert_eq!(settings.expect("settings").sandbox.as_deref(), Some(url));
    }
    for url in [
        "https://sts.amazonaws.com",
        "http://127.0.0.1.example.com:80",
        "http://user@example.com",
        "http://10.0.0.1:80",
    ] {
        let flag = format!("--sandbox={url}");
        assert!(decide(file, &["plan", &flag], &[]).1.is_err(), "{url}");
    }
}

#[test]
fn the_file_of_a_parent_directory_sets_the_root() {
    let (dir, _) = decide(HEAD, &["plan"], &[]);
    let deep = dir.path().join("a/b");
    std::fs::create_dir_all(&deep).expect("mkdir");
    let settings = decide_in(&deep, &["plan"], &[("AWS_REGION", "eu-west-1")]).expect("settings");
    assert_eq!(settings.root, dir.path());
    let error = decide_in(&deep, &["plan", "--region", "nowhere"], &[]).expect_err("region");
    assert!(error.what().contains("`region` is `nowhere`"), "{error}");
}
