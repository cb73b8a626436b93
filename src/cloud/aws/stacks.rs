//! CloudFormation.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_cloudformation::types::{
    Capability, ChangeSetStatus, ChangeSetType, ExecutionStatus, Parameter, Tag, TemplateStage,
};

use super::errors::{Context, code, message};
use crate::cloud::{Change, ChangeRequest, ChangeSetState, Map, Stack, StackEvent, StackResource, Stacks};
use crate::error::{Error, Result};

/// CloudFormation's limit for a template in the request body, in bytes (CreateChangeSet, TemplateBody).
const BODY_LIMIT: usize = 51_200;

/// [`Stacks`] on CloudFormation.
pub(super) struct CloudFormation {
    client: aws_sdk_cloudformation::Client,
    context: Arc<Context>,
}

impl CloudFormation {
    pub(super) fn new(client: aws_sdk_cloudformation::Client, context: Arc<Context>) -> Self {
        CloudFormation { client, context }
    }
}

/// CloudFormation has no code of its own for an unknown stack.
fn is_absent(code: &str, message: &str) -> bool {
    code == "StackNotFoundException" || code == "ValidationError" && message.contains("does not exist")
}

/// Both texts with which a change set fails when there is nothing to do.
fn is_empty_reason(reason: &str) -> bool {
    reason.contains("didn't contain changes") || reason.contains("No updates are to be performed")
}

fn tag(key: &str, value: &str) -> Tag {
    Tag::builder().key(key).value(value).build()
}

/// The state that a change set's two statuses and its reason add up to; `None` while it is being computed.
fn state(status: &str, execution: &str, reason: &str, changes: Vec<Change>) -> ChangeSetState {
    if execution == ExecutionStatus::Obsolete.as_str() {
        return ChangeSetState::Obsolete;
    }
    let because = |text: &str| if reason.is_empty() { text.to_owned() } else { reason.to_owned() };
    match status {
        "CREATE_PENDING" | "CREATE_IN_PROGRESS" => ChangeSetState::Pending,
        "CREATE_COMPLETE" => match execution {
            "AVAILABLE" => ChangeSetState::Ready(changes),
            other => ChangeSetState::Failed(because(&format!("it cannot be executed: {other}"))),
        },
        "FAILED" if is_empty_reason(reason) => ChangeSetState::Empty,
        "FAILED" => ChangeSetState::Failed(because("CloudFormation gave no reason")),
        other => ChangeSetState::Failed(because(&format!("it is in state {other}"))),
    }
}

#[async_trait]
impl Stacks for CloudFormation {
    async fn stack(&self, name: &str) -> Result<Option<Stack>> {
        let answer = match self.client.describe_stacks().stack_name(name).send().await {
            Ok(answer) => answer,
            Err(e) if is_absent(&code(&e), &message(&e)) => return Ok(None),
            Err(e) => {
                return Err(self.context.explain(
                    "cloudformation:DescribeStacks",
                    format!("cannot look at stack {name}"),
                    &e,
                ));
            }
        };
        Ok(answer.stacks.unwrap_or_default().into_iter().next().map(|s| Stack {
            name: s.stack_name.unwrap_or_default(),
            id: s.stack_id.unwrap_or_default(),
            status: s.stack_status.map(|s| s.as_str().to_owned()).unwrap_or_default(),
            reason: s.stack_status_reason,
            parameters: s
                .parameters
                .unwrap_or_default()
                .into_iter()
                .filter_map(|p| Some((p.parameter_key?, p.parameter_value.unwrap_or_default())))
                .collect(),
            outputs: s
                .outputs
                .unwrap_or_default()
                .into_iter()
                .filter_map(|o| Some((o.output_key?, o.output_value.unwrap_or_default())))
                .collect(),
            tags: s
                .tags
                .unwrap_or_default()
                .into_iter()
                .filter_map(|t| Some((t.key?, t.value.unwrap_or_default())))
                .collect::<Map>(),
            protected: s.enable_termination_protection.unwrap_or(false),
        }))
    }

    async fn template(&self, name: &str) -> Result<String> {
        let what = || format!("cannot read the template of stack {name}");
        let answer = self
            .client
            .get_template()
            .stack_name(name)
            .template_stage(TemplateStage::Original)
            .send()
            .await
            .map_err(|e| self.context.explain("cloudformation:GetTemplate", what(), &e))?;
        answer.template_body.ok_or_else(|| Error::failed(what()).why("CloudFormation answered without a text"))
    }

    async fn request_changes(&self, request: &ChangeRequest, token: &str) -> Result<String> {
        let what = || format!("cannot create a change set for stack {}", request.stack);
        if request.template_url.is_none() && request.template.len() > BODY_LIMIT {
            return Err(Error::failed(what()).why(format!(
                "the template has {} bytes, over the {BODY_LIMIT} that CloudFormation takes in a request; it must be uploaded first",
                request.template.len()
            )));
        }
        let mut call = self
            .client
            .create_change_set()
            .stack_name(&request.stack)
            .change_set_name(&request.name)
            .change_set_type(if request.create { ChangeSetType::Create } else { ChangeSetType::Update })
            .set_role_arn(request.role_arn.clone())
            .capabilities(Capability::CapabilityIam)
            .capabilities(Capability::CapabilityNamedIam)
            .client_token(token);
        if request.import_existing {
            // Sent only when wanted: stand-ins do not all know it.
            call = call.import_existing_resources(true);
        }
        call = match &request.template_url {
            Some(url) => call.template_url(url),
            None => call.template_body(&request.template),
        };
        for (key, value) in &request.parameters {
            call = call.parameters(Parameter::builder().parameter_key(key).parameter_value(value).build());
        }
        // An empty list, not an absent one: without the field an update keeps the tags it should lose.
        call = call.set_tags(Some(request.tags.iter().map(|(k, v)| tag(k, v)).collect()));
        let answer =
            call.send().await.map_err(|e| self.context.explain("cloudformation:CreateChangeSet", what(), &e))?;
        answer.id.ok_or_else(|| Error::failed(what()).why("CloudFormation answered without an id"))
    }

    async fn changes(&self, stack: &str, change_set: &str) -> Result<ChangeSetState> {
        let mut changes = Vec::new();
        let mut next = None;
        loop {
            let answer = match self
                .client
                .describe_change_set()
                .stack_name(stack)
                .change_set_name(change_set)
                .set_next_token(next)
                .send()
                .await
            {
                Ok(answer) => answer,
                // A successful update removes the stack's other change sets.
                Err(e) if code(&e) == "ChangeSetNotFound" || code(&e) == "ChangeSetNotFoundException" => {
                    return Ok(ChangeSetState::Obsolete);
                }
                Err(e) => {
                    let what = format!("cannot look at a change set of stack {stack}");
                    return Err(self.context.explain("cloudformation:DescribeChangeSet", what, &e));
                }
            };
            changes.extend(answer.changes.unwrap_or_default().into_iter().filter_map(|c| c.resource_change).map(|r| {
                Change {
                    logical_id: r.logical_resource_id.unwrap_or_default(),
                    kind: r.resource_type.unwrap_or_default(),
                    action: r.action.map(|a| a.as_str().to_owned()).unwrap_or_default(),
                    replacement: r.replacement.map(|r| r.as_str().to_owned()).unwrap_or_default(),
                    physical_id: r.physical_resource_id.filter(|id| !id.is_empty()),
                }
            }));
            next = answer.next_token.filter(|token| !token.is_empty());
            if next.is_some() {
                continue;
            }
            let status = answer.status.unwrap_or(ChangeSetStatus::CreatePending);
            let execution = answer.execution_status.map(|e| e.as_str().to_owned()).unwrap_or_default();
            return Ok(state(
                status.as_str(),
                &execution,
                answer.status_reason.as_deref().unwrap_or_default(),
                changes,
            ));
        }
    }

    async fn execute(&self, stack: &str, change_set: &str, token: &str, disable_rollback: bool) -> Result<()> {
        self.client
            .execute_change_set()
            .stack_name(stack)
            .change_set_name(change_set)
            .client_request_token(token)
            .disable_rollback(disable_rollback)
            .send()
            .await
            .map(|_| ())
            .map_err(|e| {
                let what = format!("cannot execute the change set of stack {stack}");
                self.context.explain("cloudformation:ExecuteChangeSet", what, &e)
            })
    }

    async fn discard(&self, stack: &str, change_set: &str) -> Result<()> {
        match self.client.delete_change_set().stack_name(stack).change_set_name(change_set).send().await {
            Ok(_) => Ok(()),
            Err(e) if code(&e).starts_with("ChangeSetNotFound") || is_absent(&code(&e), &message(&e)) => Ok(()),
            Err(e) => {
                let what = format!("cannot delete a change set of stack {stack}");
                Err(self.context.explain("cloudformation:DeleteChangeSet", what, &e))
            }
        }
    }

    async fn delete(&self, name: &str, token: &str, role_arn: Option<&str>) -> Result<()> {
        let call = self.client.delete_stack().stack_name(name).client_request_token(token);
        match call.set_role_arn(role_arn.map(str::to_owned)).send().await {
            Ok(_) => Ok(()),
            Err(e) if is_absent(&code(&e), &message(&e)) => Ok(()),
            Err(e) => {
                Err(self.context.explain("cloudformation:DeleteStack", format!("cannot delete stack {name}"), &e))
            }
        }
    }

    async fn cancel_update(&self, name: &str, token: &str) -> Result<()> {
        self.client.cancel_update_stack().stack_name(name).client_request_token(token).send().await.map(|_| ()).map_err(
            |e| {
                let what = format!("cannot cancel the update of stack {name}");
                self.context.explain("cloudformation:CancelUpdateStack", what, &e)
            },
        )
    }

    async fn events(&self, stack: &str, after: Option<&str>) -> Result<Vec<StackEvent>> {
        let mut events = Vec::new();
        let mut next = None;
        'pages: loop {
            let answer = match self.client.describe_stack_events().stack_name(stack).set_next_token(next).send().await {
                Ok(answer) => answer,
                Err(e) if is_absent(&code(&e), &message(&e)) => return Ok(Vec::new()),
                Err(e) => {
                    let what = format!("cannot read the events of stack {stack}");
                    return Err(self.context.explain("cloudformation:DescribeStackEvents", what, &e));
                }
            };
            for event in answer.stack_events.unwrap_or_default() {
                let id = event.event_id.unwrap_or_default();
                if after.is_some_and(|after| after == id) {
                    break 'pages;
                }
                events.push(StackEvent {
                    id,
                    at: event.timestamp.and_then(|t| t.to_millis().ok()).unwrap_or_default(),
                    logical_id: event.logical_resource_id.unwrap_or_default(),
                    kind: event.resource_type.unwrap_or_default(),
                    status: event.resource_status.map(|s| s.as_str().to_owned()).unwrap_or_default(),
                    reason: event.resource_status_reason.filter(|r| !r.is_empty()),
                    physical_id: event.physical_resource_id.filter(|id| !id.is_empty()),
                    token: event.client_request_token,
                });
            }
            next = answer.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                break;
            }
        }
        events.reverse();
        Ok(events)
    }

    async fn resources(&self, stack: &str) -> Result<Vec<StackResource>> {
        let mut resources = Vec::new();
        let mut next = None;
        loop {
            let answer = match self.client.list_stack_resources().stack_name(stack).set_next_token(next).send().await {
                Ok(answer) => answer,
                Err(e) if is_absent(&code(&e), &message(&e)) => return Ok(Vec::new()),
                Err(e) => {
                    let what = format!("cannot list the resources of stack {stack}");
                    return Err(self.context.explain("cloudformation:ListStackResources", what, &e));
                }
            };
            resources.extend(answer.stack_resource_summaries.unwrap_or_default().into_iter().map(|r| StackResource {
                logical_id: r.logical_resource_id.unwrap_or_default(),
                physical_id: r.physical_resource_id.filter(|id| !id.is_empty()),
                kind: r.resource_type.unwrap_or_default(),
                status: r.resource_status.map(|s| s.as_str().to_owned()).unwrap_or_default(),
            }));
            next = answer.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(resources);
            }
        }
    }

    async fn protect(&self, stack: &str, on: bool) -> Result<()> {
        self.client
            .update_termination_protection()
            .stack_name(stack)
            .enable_termination_protection(on)
            .send()
            .await
            .map(|_| ())
            .map_err(|e| {
                let what = format!("cannot change the termination protection of stack {stack}");
                self.context.explain("cloudformation:UpdateTerminationProtection", what, &e)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_texts_mean_nothing_to_change() {
        for reason in [
            "The submitted information didn't contain changes. Submit different information to create a change set.",
            "No updates are to be performed.",
        ] {
            assert_eq!(state("FAILED", "UNAVAILABLE", reason, vec![]), ChangeSetState::Empty);
        }
        assert_eq!(
            state("FAILED", "UNAVAILABLE", "Parameters: [X] must have values", vec![]),
            ChangeSetState::Failed("Parameters: [X] must have values".into())
        );
    }

    #[test]
    fn a_change_set_is_ready_only_when_it_can_be_executed() {
        assert_eq!(state("CREATE_COMPLETE", "AVAILABLE", "", vec![]), ChangeSetState::Ready(vec![]));
        assert_eq!(state("CREATE_COMPLETE", "OBSOLETE", "", vec![]), ChangeSetState::Obsolete);
        assert_eq!(state("CREATE_IN_PROGRESS", "UNAVAILABLE", "", vec![]), ChangeSetState::Pending);
        assert!(matches!(state("CREATE_COMPLETE", "EXECUTE_COMPLETE", "", vec![]), ChangeSetState::Failed(_)));
    }

    #[test]
    fn only_an_unknown_stack_is_absent() {
        assert!(is_absent("ValidationError", "Stack with id demo does not exist"));
        assert!(!is_absent("ValidationError", "Template format error: unresolved"));
        assert!(!is_absent("AccessDenied", "does not exist"));
    }
}
