//! The command line as people see it, where no AWS is needed. `TRYCMD=overwrite` writes what is there now.

#[test]
fn transcripts() {
    let cases = trycmd::TestCases::new();
    // Nothing of the machine's environment may show.
    for name in ["AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "COMFY_DEPLOY_CONFIG"] {
        cases.env(name, "");
    }
    cases.env("COLUMNS", "100").env("NO_COLOR", "1").case("tests/cmd/*.trycmd");
}
