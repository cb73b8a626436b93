//! The same request as a line for a shell. Secrets stay in variables.

/// A `curl` line that sends `body`. With a `region` it is signed.
pub fn line(url: &str, region: Option<&str>, body: &str, file: &str) -> String {
    let mut parts = vec!["curl --fail-with-body --silent --show-error".to_owned()];
    if let Some(region) = region {
        parts.push(format!("--aws-sigv4 {}", quoted(&format!("aws:amz:{region}:lambda"))));
        parts.push("--user \"$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY\"".to_owned());
        // curl leaves a header without a value out, as keys without a session have none.
        parts.push("--header \"x-amz-security-token: ${AWS_SESSION_TOKEN-}\"".to_owned());
    }
    parts.push(format!("--header {}", quoted("content-type: application/json")));
    parts.push(format!("--data-raw {}", quoted(body)));
    parts.push(format!("--output {}", quoted(file)));
    parts.push(quoted(url));
    parts.join(" \\\n  ")
}

/// One word for a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_signed_line_has_variables_and_no_secret() {
        insta::assert_snapshot!(line(
            "https://abc.lambda-url.eu-west-1.on.aws/",
            Some("eu-west-1"),
            r#"{"positive_prompt":"the dog's hill"}"#,
            "workflow_api-7.jpg",
        ));
        assert!(!line("https://a/", None, "{}", "f").contains("AWS_"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_shell_reads_back_what_was_quoted(text in "[^\u{0}]{0,40}") {
            let script = format!("printf %s {}", quoted(&text));
            let read = std::process::Command::new("sh").args(["-c", &script]).output().expect("a shell");
            prop_assert_eq!(String::from_utf8_lossy(&read.stdout), text);
        }
    }
}
