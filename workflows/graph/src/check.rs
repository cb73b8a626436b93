//! Everything that is wrong with a workflow, as far as it can be known without running it.

use std::collections::BTreeMap;
use std::fmt;

use crate::classes::Classes;
use crate::node::Node;
use crate::parse::Workflow;

mod graph;
mod links;
mod models;
mod values;

pub use models::Models;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing, probably meant so.
    Note,
    /// It may run, but probably not as meant.
    Warning,
    /// ComfyUI will refuse it or fail.
    Error,
}

impl Severity {
    /// In lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// What kind of problem a finding is. The names are for programs and stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// An array that is not `["id", slot]`.
    MalformedLink,
    /// A link to a node that is not there.
    DanglingLink,
    /// A link to an output that its class does not have.
    NoSuchOutput,
    /// A link between an output and an input of different types.
    TypeMismatch,
    /// Nodes that need each other.
    Cycle,
    /// Nothing that saves or shows a picture.
    NoOutputNode,
    /// No placeholder for the prompt.
    NoPlaceholder,
    /// A model file that the app does not have.
    MissingModel,
    /// A class that neither ComfyUI nor, as far as is known, a custom node provides.
    UnknownClass,
    /// A class that calls an outside service.
    OutsideService,
    /// A required input that is not there.
    MissingInput,
    /// An input that the class does not have, and that looks like one it has.
    MisspeltInput,
    /// A value that cannot be converted to the input's type.
    WrongType,
    /// A value where only another node's output can be.
    LiteralForLink,
    /// A number beyond the limits of its input.
    OutOfRange,
    /// A name that is not among the choices of its input.
    NoSuchChoice,
}

impl Kind {
    /// In snake case.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::MalformedLink => "malformed_link",
            Kind::DanglingLink => "dangling_link",
            Kind::NoSuchOutput => "no_such_output",
            Kind::TypeMismatch => "type_mismatch",
            Kind::Cycle => "cycle",
            Kind::NoOutputNode => "no_output_node",
            Kind::NoPlaceholder => "no_placeholder",
            Kind::MissingModel => "missing_model",
            Kind::UnknownClass => "unknown_class",
            Kind::OutsideService => "outside_service",
            Kind::MissingInput => "missing_input",
            Kind::MisspeltInput => "misspelt_input",
            Kind::WrongType => "wrong_type",
            Kind::LiteralForLink => "literal_for_link",
            Kind::OutOfRange => "out_of_range",
            Kind::NoSuchChoice => "no_such_choice",
        }
    }
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// Which.
    pub kind: Kind,
    /// Id of the node, unless it is about the whole workflow.
    pub node: Option<String>,
    /// Class of the node.
    pub class: Option<String>,
    /// Name of the input, if it is about one.
    pub input: Option<String>,
    /// What is wrong, and what to do.
    pub message: String,
    /// The name that was probably meant.
    pub nearest: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.severity.as_str())?;
        if let (Some(node), Some(class)) = (&self.node, &self.class) {
            write!(f, "node {} ({})", node.escape_debug(), class.escape_debug())?;
            match &self.input {
                Some(input) => write!(f, ", {}: ", input.escape_debug())?,
                None => write!(f, ": ")?,
            }
        }
        f.write_str(&self.message)?;
        f.write_str(&crate::nearest::suggestion(self.nearest.as_deref()))
    }
}

/// What there is to run a workflow with. What is not known is not checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> {
    /// The node classes of ComfyUI.
    pub classes: Option<&'a Classes>,
    /// Whether the app runs the ComfyUI that `classes` are of. Another version may have more choices and other limits,
    /// so what does not fit them is a warning then.
    pub other_version: bool,
    /// Whether the app has custom nodes. Their classes are not known, so a class that nobody knows is a note then.
    pub custom_nodes: bool,
    /// The app's models.
    pub models: Option<&'a Models>,
}

/// Everything that is wrong, the whole workflow's problems first, then by node in the order of the file.
///
/// ComfyUI looks at the inputs only of nodes that an output node needs. What is wrong with the others is a warning.
pub fn check(workflow: &Workflow, known: &Known<'_>) -> Vec<Finding> {
    let mut check = Check {
        workflow,
        known,
        nodes: workflow.views().map(|node| (node.id(), node)).collect(),
        findings: Vec::new(),
    };
    check.graph();
    let needed = check.needed();
    check.cycles(&needed);
    for node in workflow.views() {
        let before = check.findings.len();
        check.class(node);
        let classes = check.findings.len();
        check.links(node);
        check.inputs(node);
        check.models(node);
        if !needed.contains(node.id()) {
            for finding in &mut check.findings[classes..] {
                finding.severity = finding.severity.min(Severity::Warning);
            }
        }
        check.findings[before..].sort_by_key(|finding| position(node, finding));
    }
    check.findings
}

/// By input in the order of the file; what is about the node or a missing input comes first.
fn position(node: Node<'_>, finding: &Finding) -> Option<usize> {
    let input = finding.input.as_ref()?;
    node.inputs().keys().position(|name| name == input)
}

struct Check<'a> {
    workflow: &'a Workflow,
    known: &'a Known<'a>,
    nodes: BTreeMap<&'a str, Node<'a>>,
    findings: Vec<Finding>,
}

impl Check<'_> {
    /// Something about a node, or one of its inputs.
    fn find(
        &mut self,
        severity: Severity,
        kind: Kind,
        node: Node<'_>,
        input: Option<&str>,
        message: String,
    ) -> &mut Finding {
        self.add(Finding {
            severity,
            kind,
            node: Some(node.id().to_owned()),
            class: Some(node.class().to_owned()),
            input: input.map(str::to_owned),
            message,
            nearest: None,
        })
    }

    /// Something about the whole workflow.
    fn find_whole(&mut self, severity: Severity, kind: Kind, message: String) {
        self.add(Finding { severity, kind, node: None, class: None, input: None, message, nearest: None });
    }

    fn add(&mut self, finding: Finding) -> &mut Finding {
        self.findings.push_mut(finding)
    }

    /// How bad it is when something does not fit the known classes.
    fn misfit(&self) -> Severity {
        if self.known.other_version { Severity::Warning } else { Severity::Error }
    }
}

#[cfg(all(test, feature = "core-classes"))]
mod tests;
