use super::*;
use crate::error::ServiceError;

fn manner(vars: &[(&str, &str)], terminal: Terminal) -> Manner {
    let env = |name: &str| vars.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned());
    Manner::decide(&Global::default(), &env, terminal).expect("manner")
}

const TTY: Terminal = Terminal { stdin: true, stdout: true, stderr: true, width: Some(80) };

#[test]
fn colour_follows_the_conventions() {
    let colour = |vars: &[(&str, &str)], terminal| manner(vars, terminal).err.colour;
    assert!(colour(&[], TTY));
    assert!(!colour(&[("NO_COLOR", "1")], TTY));
    assert!(!colour(&[("TERM", "dumb")], TTY));
    assert!(!colour(&[], Terminal::default()));
    assert!(colour(&[("CLICOLOR_FORCE", "1")], Terminal::default()));
    assert_eq!(manner(&[], TTY).progress, ProgressChoice::Tty);
    assert_eq!(manner(&[("CI", "true")], TTY).progress, ProgressChoice::Plain);
}

fn ui(ask: bool, yes: bool, typed: &'static str) -> Ui {
    let manner = Manner { ask, yes, ..manner(&[], Terminal::default()) };
    Ui::with(manner, Box::new(std::io::sink()), Box::new(std::io::sink()), Box::new(typed.as_bytes()))
}

#[test]
fn nobody_is_asked_without_a_terminal() {
    assert_eq!(ui(false, false, "y\n").confirm("Go on?").expect_err("no terminal").kind(), Kind::Refused);
    assert!(ui(false, true, "").confirm("Go on?").expect("--yes"));
    assert!(ui(true, false, "maybe\ny\n").confirm("Go on?").expect("asked"));
    assert!(!ui(true, false, "\n").confirm("Go on?").expect("asked"));
    assert!(!ui(true, false, "").confirm("Go on?").expect("end of input"));
}

#[test]
fn a_name_must_be_the_name() {
    assert!(ui(false, true, "").confirm_name("comfy", None, "--confirm").is_err());
    assert!(ui(false, false, "").confirm_name("comfy", Some("comfy"), "--confirm").is_ok());
    assert!(ui(true, false, "comfi\n").confirm_name("comfy", None, "--confirm").is_err());
    assert!(ui(true, false, "comfy\n").confirm_name("comfy", None, "--confirm").is_ok());
}

#[test]
fn an_error_says_what_why_who_and_what_next() {
    let service = ServiceError {
        operation: "cloudformation:CreateChangeSet".into(),
        code: "ValidationError".into(),
        message: "Stack is in ROLLBACK_COMPLETE state".into(),
        request_id: Some("r-1".into()),
        status: Some(400),
    };
    let error = Error::service("cannot update the stack comfy", service)
        .why("its first creation failed")
        .next("comfy-deploy up");
    insta::assert_snapshot!(format!("{}\n-----\n{}", error_text(&error, Look::PLAIN), envelope("up", Err(&error))));
}
