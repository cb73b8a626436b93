//! One error type: what happened, why, what to type next, and the exit code that follows.

use std::fmt;
use std::sync::Arc;

/// How a terminal or a file wants its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// ANSI colours.
    pub colour: bool,
    /// Box-drawing characters.
    pub unicode: bool,
    /// Columns.
    pub width: u16,
}

impl Look {
    /// For files, pipes and tests: ASCII, no colour, 100 columns.
    pub const PLAIN: Look = Look { colour: false, unicode: false, width: 100 };
}

/// A report that is drawn when it is printed, once it is known where.
pub trait Drawing: fmt::Debug + Send + Sync {
    /// The report's text, without a newline at its end.
    fn draw(&self, look: Look) -> String;
}

/// A report that is the same everywhere.
impl Drawing for String {
    fn draw(&self, _: Look) -> String {
        self.trim_end().to_owned()
    }
}

/// What sort of failure it was; decides the exit code and the `error.code` of the JSON envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Anything without a code of its own.
    Failed,
    /// Wrong command line, config file or input.
    Usage,
    /// The user said no, or a needed confirmation could not be asked for.
    Refused,
    /// The stack or the endpoint failed and was rolled back.
    RolledBack,
    /// SageMaker went back to the old endpoint config without an error.
    SilentRollback,
    /// Another operation holds the stack.
    Busy,
    /// Credentials are missing or expired, or a permission is missing.
    Access,
    /// A quota or capacity is exhausted.
    Quota,
    /// Ctrl-C or SIGTERM.
    Interrupted,
}

impl Kind {
    /// The process exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Refused => 3,
            Kind::RolledBack => 4,
            Kind::SilentRollback => 5,
            Kind::Busy => 6,
            Kind::Access => 7,
            Kind::Quota => 8,
            Kind::Interrupted => 130,
        }
    }

    /// The stable code in `--output json`.
    pub fn code(self) -> &'static str {
        match self {
            Kind::Failed => "failed",
            Kind::Usage => "usage",
            Kind::Refused => "refused",
            Kind::RolledBack => "rolled_back",
            Kind::SilentRollback => "silent_rollback",
            Kind::Busy => "busy",
            Kind::Access => "access",
            Kind::Quota => "quota",
            Kind::Interrupted => "interrupted",
        }
    }
}

/// What AWS said, kept apart from our own sentence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceError {
    /// Service and operation, as in `cloudformation:CreateChangeSet`.
    pub operation: String,
    /// The service's error code, as in `ValidationError`.
    pub code: String,
    /// The service's own message.
    pub message: String,
    /// The request id, for a support case.
    pub request_id: Option<String>,
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
}

/// A failure as the user will read it.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    what: String,
    why: Vec<String>,
    next: Option<String>,
    report: Option<Arc<dyn Drawing>>,
    service: Option<ServiceError>,
}

/// The result type of the whole program.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Codes that say "not now": throttling, a body that was damaged or cut off on its way, and one that was signed before
/// the machine slept.
const TRANSIENT: [&str; 11] = [
    "SlowDown",
    "RequestTimeout",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequests",
    "BadDigest",
    "RequestTimeTooSkewed",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
    "IncompleteBody",
];

impl Error {
    /// An error of a kind, with the sentence that says what happened.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, what: what.into(), why: Vec::new(), next: None, report: None, service: None }))
    }

    /// [`Kind::Failed`].
    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Kind::Failed, what)
    }

    /// [`Kind::Usage`].
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Kind::Usage, what)
    }

    /// A failed call on a file or directory.
    pub fn io(doing: &str, path: &std::path::Path, cause: &std::io::Error) -> Self {
        Self::failed(format!("cannot {doing} {}", path.display())).why(cause.to_string())
    }

    /// A failed AWS call. Which [`Kind`] it is follows from the code.
    pub fn service(what: impl Into<String>, service: ServiceError) -> Self {
        let mut error = Self::new(Kind::Failed, what);
        error.0.service = Some(service);
        error
    }

    /// Adds a reason, most direct first.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.0.why.push(why.into());
        self
    }

    /// Says what to type or do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.0.next = Some(next.into());
        self
    }

    /// Sets another kind.
    #[must_use]
    pub fn kind_is(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Attaches a drawn report (config source with a caret) that is printed instead of the one-line form.
    #[must_use]
    pub fn report(self, report: impl Into<String>) -> Self {
        self.drawing(Arc::new(report.into()))
    }

    /// Attaches a report that is drawn when it is printed, instead of the one-line form.
    #[must_use]
    pub fn drawing(mut self, report: Arc<dyn Drawing>) -> Self {
        self.0.report = Some(report);
        self
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The sentence that says what happened.
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// The reasons, most direct first.
    pub fn reasons(&self) -> &[String] {
        &self.0.why
    }

    /// What to do next.
    pub fn hint(&self) -> Option<&str> {
        self.0.next.as_deref()
    }

    /// The drawn report, if there is one.
    pub fn drawn(&self, look: Look) -> Option<String> {
        self.0.report.as_ref().map(|report| report.draw(look))
    }

    /// What AWS said, if AWS said it.
    pub fn aws(&self) -> Option<&ServiceError> {
        self.0.service.as_ref()
    }

    /// Whether AWS answered with this error code.
    pub fn is_aws(&self, code: &str) -> bool {
        self.aws().is_some_and(|s| s.code == code)
    }

    /// Whether the same request may succeed later: the service was busy, did not answer, or its answer broke off.
    pub fn is_transient(&self) -> bool {
        match self.aws() {
            Some(aws) if TRANSIENT.contains(&aws.code.as_str()) => true,
            Some(aws) => match aws.status {
                Some(status) => status >= 500 || status == 429,
                None => self.kind() == Kind::Failed,
            },
            None => self.kind() == Kind::Failed,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        for why in &self.0.why {
            write!(f, ": {why}")?;
        }
        if let Some(s) = &self.0.service {
            write!(f, ": {} ({})", s.message, s.code)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
