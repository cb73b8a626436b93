//! Tests on the world itself, with time in hand.

pub(super) mod services;

mod change_sets;
mod laws;
mod rules;
mod stacks;
mod templates;

use serde_json::{Value, json};

use crate::faults::{Fault, What};
use crate::world::{Answer, ApiError, Ctx, World, call};

/// A world at a moment.
struct Bed {
    world: World,
    now: i64,
}

impl Bed {
    fn new() -> Bed {
        services::reset();
        Bed { world: World { time_scale: 1.0, ..World::default() }, now: 1_800_000_000_000 }
    }

    fn ctx(&self) -> Ctx {
        Ctx { region: "us-east-1".to_owned(), request_id: "request".to_owned(), now: self.now }
    }

    fn call(&mut self, operation: &str, input: Value) -> Answer {
        let ctx = self.ctx();
        call(&mut self.world, &ctx, "cloudformation", operation, &input)
    }

    fn ok(&mut self, operation: &str, input: Value) -> Value {
        match self.call(operation, input) {
            Ok(answer) => answer,
            Err(error) => panic!("{operation}: {}: {}", error.code, error.message),
        }
    }

    fn refused(&mut self, operation: &str, input: Value) -> ApiError {
        match self.call(operation, input) {
            Ok(answer) => panic!("{operation} was not refused: {answer}"),
            Err(error) => error,
        }
    }

    /// Another service, by its API.
    fn other(&mut self, service: &str, operation: &str, input: Value) -> Value {
        let ctx = self.ctx();
        match call(&mut self.world, &ctx, service, operation, &input) {
            Ok(answer) => answer,
            Err(error) => panic!("{service} {operation}: {}: {}", error.code, error.message),
        }
    }

    fn step(&mut self) {
        self.now += 500;
        // The state goes through its file form, so that nothing lives in memory only.
        let now = self.now;
        crate::cfn::tick(&mut self.world, now);
        let region = self.world.region("us-east-1");
        let text = serde_json::to_string(&region.cfn).expect("state serialises");
        region.cfn = serde_json::from_str(&text).expect("state comes back");
    }

    fn status(&mut self, stack: &str) -> String {
        self.stack(stack)["StackStatus"].as_str().unwrap_or_default().to_owned()
    }

    fn stack(&mut self, stack: &str) -> Value {
        self.ok("DescribeStacks", json!({ "StackName": stack }))["Stacks"][0].clone()
    }

    /// Lets time pass until the stack is at rest.
    fn settle(&mut self, stack: &str) -> String {
        for _ in 0..2000 {
            let status = self.status(stack);
            if !status.ends_with("_IN_PROGRESS") || status == "REVIEW_IN_PROGRESS" {
                // Shown with a test that fails.
                #[allow(clippy::disallowed_macros, reason = "the test runner captures it")]
                for event in self
                    .raw_events(stack)
                    .iter()
                    .rev()
                    .filter(|event| text(event, "ResourceStatus").ends_with("FAILED"))
                {
                    println!("{} {}", text(event, "LogicalResourceId"), text(event, "ResourceStatusReason"));
                }
                return status;
            }
            self.step();
        }
        panic!("{stack} does not come to rest: {:?}", self.events(stack));
    }

    /// `Logical STATUS`, oldest first.
    fn events(&mut self, stack: &str) -> Vec<String> {
        let mut all = self.raw_events(stack);
        all.reverse();
        all.iter()
            .map(|event| format!("{} {}", text(event, "LogicalResourceId"), text(event, "ResourceStatus")))
            .collect()
    }

    fn raw_events(&mut self, stack: &str) -> Vec<Value> {
        let (mut all, mut next) = (Vec::new(), None);
        loop {
            let mut input = json!({ "StackName": stack });
            if let Some(token) = next {
                input["NextToken"] = token;
            }
            let answer = self.ok("DescribeStackEvents", input);
            all.extend(answer["StackEvents"].as_array().cloned().unwrap_or_default());
            match answer.get("NextToken") {
                Some(token) => next = Some(token.clone()),
                None => return all,
            }
        }
    }

    /// The reason of the first event with this status of this resource.
    fn reason(&mut self, stack: &str, logical: &str, status: &str) -> String {
        let events = self.raw_events(stack);
        let found = events
            .iter()
            .rev()
            .find(|event| text(event, "LogicalResourceId") == logical && text(event, "ResourceStatus") == status);
        found.map(|event| text(event, "ResourceStatusReason").to_owned()).unwrap_or_default()
    }

    fn physical(&mut self, stack: &str, logical: &str) -> String {
        let found = self.ok("DescribeStackResource", json!({ "StackName": stack, "LogicalResourceId": logical }));
        found["StackResourceDetail"]["PhysicalResourceId"].as_str().unwrap_or_default().to_owned()
    }

    fn create(&mut self, stack: &str, template: &Value) -> String {
        self.ok("CreateStack", json!({ "StackName": stack, "TemplateBody": template.to_string() }));
        self.settle(stack)
    }

    fn update(&mut self, stack: &str, template: &Value) -> String {
        self.ok("UpdateStack", json!({ "StackName": stack, "TemplateBody": template.to_string() }));
        self.settle(stack)
    }

    /// Makes a change set and waits until it is there or failed.
    fn change_set(&mut self, name: &str, input: Value) -> Value {
        let mut input = input;
        input["ChangeSetName"] = json!(name);
        let made = self.ok("CreateChangeSet", input);
        for _ in 0..100 {
            let found =
                self.ok("DescribeChangeSet", json!({ "ChangeSetName": made["Id"], "IncludePropertyValues": true }));
            if matches!(text(&found, "Status"), "CREATE_COMPLETE" | "FAILED") {
                return found;
            }
            self.step();
        }
        panic!("change set {name} never comes");
    }

    fn fault(&mut self, logical: &str, message: &str) {
        let what = What::ResourceFails { logical_id: logical.to_owned(), message: message.to_owned() };
        self.world.faults.0.push(Fault { what, times: 1, after: 0 });
    }
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value.get(member).and_then(Value::as_str).unwrap_or_default()
}

/// A model, its endpoint config and its endpoint, all named, as a service stack has them.
fn service(version: &str) -> Value {
    json!({
        "Resources": {
            "Model": {
                "Type": "AWS::SageMaker::Model",
                "Properties": {
                    "ModelName": format!("app-{version}"),
                    "ExecutionRoleArn": "arn:aws:iam::123456789012:role/execution",
                    "PrimaryContainer": { "Image": "image", "Environment": { "VERSION": version } },
                },
            },
            "Config": {
                "Type": "AWS::SageMaker::EndpointConfig",
                "Properties": {
                    "EndpointConfigName": format!("app-{version}"),
                    "ProductionVariants": [{
                        "VariantName": "AllTraffic",
                        "ModelName": { "Fn::GetAtt": ["Model", "ModelName"] },
                        "InitialInstanceCount": 1,
                        "InstanceType": "ml.g5.xlarge",
                    }],
                },
            },
            "Endpoint": {
                "Type": "AWS::SageMaker::Endpoint",
                "Properties": {
                    "EndpointName": "app",
                    "EndpointConfigName": { "Fn::GetAtt": ["Config", "EndpointConfigName"] },
                },
            },
        },
        "Outputs": { "Arn": { "Value": { "Ref": "Endpoint" } } },
    })
}

/// A bucket with this name, and a repository.
fn storage(bucket: &str) -> Value {
    json!({
        "Resources": {
            "Bucket": { "Type": "AWS::S3::Bucket", "Properties": { "BucketName": bucket } },
            "Repository": { "Type": "AWS::ECR::Repository", "Properties": { "RepositoryName": "images" } },
        },
    })
}
