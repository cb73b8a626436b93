use clap::CommandFactory;

use super::*;

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn typos_are_answered_with_the_nearest_word() {
    let says = |args: &[&str]| Cli::try_parse_from(args).expect_err("typo").to_string();
    assert!(says(&["comfy-deploy", "sttus"]).contains("'status'"));
    assert!(says(&["comfy-deploy", "up", "--instnce-type", "x"]).contains("'--instance-type'"));
}

#[test]
fn deploy_is_up_and_a_flag_may_stand_on_either_side() {
    let cli = Cli::try_parse_from(["comfy-deploy", "deploy", "--env", "prod", "-y"]).expect("parsed");
    assert_eq!((cli.verb.name(), cli.global.env.as_deref(), cli.global.yes), ("up", Some("prod"), true));
    let cli = Cli::try_parse_from(["comfy-deploy", "--sandbox", "up"]).expect("parsed");
    assert_eq!((cli.verb.name(), cli.global.sandbox.as_deref()), ("up", Some("")));
    let cli = Cli::try_parse_from(["comfy-deploy", "update-model", "--version", "v2"]).expect("parsed");
    assert!(matches!(cli.verb, Verb::UpdateModel(UpdateModel { label: Some(label), .. }) if label == "v2"));
}

#[test]
fn every_shell_gets_a_completion_script() {
    for shell in <clap_complete::Shell as ValueEnum>::value_variants() {
        let script = completions(*shell);
        assert!(String::from_utf8_lossy(&script).contains("update-model"), "{shell}");
    }
}
