//! CloudFormation, as far as we use it.

use async_trait::async_trait;

use super::Map;
use crate::error::Result;

/// A stack as DescribeStacks shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Name.
    pub name: String,
    /// ARN.
    pub id: String,
    /// `CREATE_COMPLETE` and so on.
    pub status: String,
    /// StackStatusReason.
    pub reason: Option<String>,
    /// Parameters as used; NoEcho values are masked.
    pub parameters: Map,
    /// Outputs.
    pub outputs: Map,
    /// Tags.
    pub tags: Map,
    /// EnableTerminationProtection.
    pub protected: bool,
}

impl Stack {
    /// Whether an operation is running.
    pub fn busy(&self) -> bool {
        self.status.ends_with("_IN_PROGRESS") && self.status != "REVIEW_IN_PROGRESS"
    }
}

/// What a change set would do to one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Logical id.
    pub logical_id: String,
    /// `AWS::...`
    pub kind: String,
    /// `Add`, `Modify`, `Remove`, `Import`, `Dynamic`.
    pub action: String,
    /// `True`, `False`, `Conditional`, or empty.
    pub replacement: String,
    /// Physical id where there is one.
    pub physical_id: Option<String>,
}

/// The state of a change set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeSetState {
    /// Still being computed.
    Pending,
    /// Ready to execute.
    Ready(Vec<Change>),
    /// There is nothing to change (either of CloudFormation's two texts).
    Empty,
    /// Another change was executed first.
    Obsolete,
    /// It cannot be executed.
    Failed(String),
}

/// A request for a change set.
#[derive(Debug, Clone)]
pub struct ChangeRequest {
    /// Stack name.
    pub stack: String,
    /// Change set name.
    pub name: String,
    /// CREATE, else UPDATE.
    pub create: bool,
    /// Template text; the adapter refuses more than 51,200 bytes without `template_url`.
    pub template: String,
    /// Where the template was uploaded when it is too large for the request body.
    pub template_url: Option<String>,
    /// Every parameter's value.
    pub parameters: Map,
    /// Stack tags.
    pub tags: Map,
    /// Service role for CloudFormation.
    pub role_arn: Option<String>,
    /// Adopt existing custom-named resources.
    pub import_existing: bool,
}

/// One stack event, oldest first in lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackEvent {
    /// Unique.
    pub id: String,
    /// Milliseconds since 1970.
    pub at: i64,
    /// Logical id; the stack's own events carry the stack name.
    pub logical_id: String,
    /// `AWS::...`
    pub kind: String,
    /// `CREATE_FAILED` and so on.
    pub status: String,
    /// ResourceStatusReason.
    pub reason: Option<String>,
    /// Physical id.
    pub physical_id: Option<String>,
    /// The ClientRequestToken of the operation.
    pub token: Option<String>,
}

/// A resource of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackResource {
    /// Logical id.
    pub logical_id: String,
    /// Physical id.
    pub physical_id: Option<String>,
    /// `AWS::...`
    pub kind: String,
    /// `CREATE_COMPLETE` and so on.
    pub status: String,
}

/// CloudFormation. Stacks are always named, never listed.
#[async_trait]
pub trait Stacks: Send + Sync {
    /// DescribeStacks of one.
    async fn stack(&self, name: &str) -> Result<Option<Stack>>;
    /// GetTemplate, the original text.
    async fn template(&self, name: &str) -> Result<String>;
    /// CreateChangeSet; returns its ARN.
    async fn request_changes(&self, request: &ChangeRequest, token: &str) -> Result<String>;
    /// DescribeChangeSet, all pages.
    async fn changes(&self, stack: &str, change_set: &str) -> Result<ChangeSetState>;
    /// ExecuteChangeSet with an explicit rollback setting.
    async fn execute(&self, stack: &str, change_set: &str, token: &str, disable_rollback: bool) -> Result<()>;
    /// DeleteChangeSet; absent is fine.
    async fn discard(&self, stack: &str, change_set: &str) -> Result<()>;
    /// DeleteStack.
    async fn delete(&self, name: &str, token: &str, role_arn: Option<&str>) -> Result<()>;
    /// CancelUpdateStack.
    async fn cancel_update(&self, name: &str, token: &str) -> Result<()>;
    /// DescribeStackEvents by name or ARN, oldest first, those after the event id `after`.
    async fn events(&self, stack: &str, after: Option<&str>) -> Result<Vec<StackEvent>>;
    /// ListStackResources.
    async fn resources(&self, stack: &str) -> Result<Vec<StackResource>>;
    /// UpdateTerminationProtection.
    async fn protect(&self, stack: &str, on: bool) -> Result<()>;
}
