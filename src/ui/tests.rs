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

/// Nobody presses Ctrl-C.
fn never() -> bool {
    false
}

fn ui(ask: bool, yes: bool, typed: &'static str) -> Ui {
    let manner = Manner { ask, yes, ..manner(&[], Terminal::default()) };
    Ui::with(manner, Box::new(std::io::sink()), Box::new(std::io::sink()), Box::new(typed.as_bytes()))
}

#[test]
fn nobody_is_asked_without_a_terminal() {
    assert_eq!(ui(false, false, "y\n").confirm("Go on?", &never).expect_err("no terminal").kind(), Kind::Refused);
    assert!(ui(false, true, "").confirm("Go on?", &never).expect("--yes"));
    assert!(ui(true, false, "maybe\ny\n").confirm("Go on?", &never).expect("asked"));
    assert!(!ui(true, false, "\n").confirm("Go on?", &never).expect("asked"));
    assert!(!ui(true, false, "").confirm("Go on?", &never).expect("end of input"));
}

#[test]
fn ctrl_c_ends_a_question_that_nobody_answers() {
    /// A terminal at which nobody types.
    struct Silent;
    impl std::io::Read for Silent {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            loop {
                std::thread::park();
            }
        }
    }
    let manner = Manner { ask: true, ..manner(&[], Terminal::default()) };
    let input = Box::new(std::io::BufReader::new(Silent));
    let ui = Ui::with(manner, Box::new(std::io::sink()), Box::new(std::io::sink()), input);
    let looks = std::cell::Cell::new(0);
    let second = || looks.replace(looks.get() + 1) == 1;
    assert_eq!(ui.confirm("Go on?", &second).expect_err("stopped").kind(), Kind::Interrupted);
    assert_eq!(looks.get(), 2);
}

#[test]
fn a_name_must_be_the_name() {
    assert!(ui(false, true, "").confirm_name("comfy", None, "--confirm", &never).is_err());
    assert!(ui(false, false, "").confirm_name("comfy", Some("comfy"), "--confirm", &never).is_ok());
    assert!(ui(true, false, "comfi\n").confirm_name("comfy", None, "--confirm", &never).is_err());
    assert!(ui(true, false, "comfy\n").confirm_name("comfy", None, "--confirm", &never).is_ok());
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
