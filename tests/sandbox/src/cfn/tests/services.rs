//! SageMaker, IAM, Lambda, Logs and scaling as far as providers ask them, with every turn set by the test.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::world::{Answer, ApiError, Ctx};

/// How the next endpoint update ends.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Ending {
    #[default]
    Good,
    /// Back to the old config, with a reason.
    Back(String),
    /// Back to the old config, without a word.
    Silent,
    /// A new endpoint fails.
    Failed(String),
}

#[derive(Debug, Default)]
struct Endpoint {
    config: String,
    next: Option<String>,
    status: String,
    reason: Option<String>,
    /// Looks until the state changes.
    looks: u32,
}

#[derive(Debug, Default)]
struct Fake {
    things: BTreeMap<(String, String), Value>,
    endpoints: BTreeMap<String, Endpoint>,
    ending: Ending,
    calls: Vec<String>,
}

thread_local! {
    static FAKE: RefCell<Fake> = RefCell::default();
}

/// Forgets everything.
pub fn reset() {
    FAKE.with(|fake| *fake.borrow_mut() = Fake::default());
}

/// Sets how the next endpoint operation ends.
pub fn ending(ending: Ending) {
    FAKE.with(|fake| fake.borrow_mut().ending = ending);
}

/// `operation name` of every call that changed something.
pub fn calls() -> Vec<String> {
    FAKE.with(|fake| fake.borrow().calls.clone())
}

/// Whether a thing of this kind has this name.
pub fn has(kind: &str, name: &str) -> bool {
    FAKE.with(|fake| {
        let fake = fake.borrow();
        if kind == "Endpoint" {
            fake.endpoints.contains_key(name)
        } else {
            fake.things.contains_key(&(kind.to_owned(), name.to_owned()))
        }
    })
}

/// The config that an endpoint serves.
pub fn serving(endpoint: &str) -> String {
    FAKE.with(|fake| fake.borrow().endpoints.get(endpoint).map(|endpoint| endpoint.config.clone()).unwrap_or_default())
}

/// Puts a thing there that no stack made.
pub fn put(kind: &str, name: &str) {
    FAKE.with(|fake| fake.borrow_mut().things.insert((kind.to_owned(), name.to_owned()), json!({})));
}

pub fn answer(ctx: &Ctx, service: &str, operation: &str, input: &Value) -> Option<Answer> {
    FAKE.with(|fake| fake.borrow_mut().answer(ctx, service, operation, input))
}

impl Fake {
    fn answer(&mut self, ctx: &Ctx, service: &str, operation: &str, input: &Value) -> Option<Answer> {
        let kinds: &[(&str, &str)] = match service {
            "sagemaker" => {
                &[("EndpointConfig", "EndpointConfigName"), ("Endpoint", "EndpointName"), ("Model", "ModelName")]
            }
            "iam" => &[("Role", "RoleName")],
            "logs" => &[("LogGroup", "logGroupName")],
            "lambda" => &[("Function", "FunctionName")],
            "application-autoscaling" => &[("ScalableTarget", "ResourceId"), ("ScalingPolicy", "PolicyName")],
            _ => return None,
        };
        let (verb, kind) = kinds
            .iter()
            .find_map(|(kind, member)| {
                let verb = operation.strip_suffix(kind)?;
                Some((verb, (*kind, *member)))
            })
            .unwrap_or((operation, kinds[0]));
        let name = input.get(kind.1).and_then(Value::as_str).unwrap_or_default().to_owned();
        if !verb.starts_with("Describe") && !verb.starts_with("Get") {
            self.calls.push(format!("{operation} {name}"));
        }
        if kind.0 == "Endpoint" && service == "sagemaker" && operation.ends_with("Endpoint") {
            return Some(self.endpoint(ctx, verb, &name, input));
        }
        let key = (kind.0.to_owned(), name.clone());
        Some(match verb {
            "Create" | "Register" | "Put" => {
                if verb == "Create" && self.things.contains_key(&key) {
                    return Some(Err(ApiError::new(
                        "ValidationException",
                        format!("Cannot create already existing {} \"{name}\".", kind.0),
                    )));
                }
                self.things.insert(key, input.clone());
                Ok(json!({ "PolicyARN": format!("arn:aws:autoscaling:policy/{name}") }))
            }
            "Delete" | "Deregister" => {
                self.things.remove(&key);
                Ok(json!({}))
            }
            "Describe" | "Get" => match self.things.get(&key) {
                Some(thing) => Ok(json!({ "Configuration": thing, "Role": thing })),
                None => Err(ApiError::new("ResourceNotFoundException", format!("Could not find {name}")).status(404)),
            },
            _ => Ok(json!({ "ScalableTargets": [], "logGroups": [] })),
        })
    }

    fn endpoint(&mut self, ctx: &Ctx, verb: &str, name: &str, input: &Value) -> Answer {
        let config = input.get("EndpointConfigName").and_then(Value::as_str).map(str::to_owned);
        match verb {
            "Create" => {
                let new = Endpoint { next: config, status: "Creating".to_owned(), looks: 6, ..Endpoint::default() };
                self.endpoints.insert(name.to_owned(), new);
                Ok(json!({ "EndpointArn": ctx.arn("sagemaker", &format!("endpoint/{name}")) }))
            }
            "Update" => {
                let endpoint = self
                    .endpoints
                    .get_mut(name)
                    .ok_or_else(|| ApiError::new("ValidationException", "Could not find it"))?;
                if endpoint.status != "InService" {
                    return Err(ApiError::new("ValidationException", "Cannot update in-progress endpoint"));
                }
                endpoint.status = "Updating".to_owned();
                endpoint.next = config;
                endpoint.looks = 6;
                Ok(json!({ "EndpointArn": "arn" }))
            }
            "Delete" => {
                self.endpoints.remove(name);
                Ok(json!({}))
            }
            _ => self.look(name),
        }
    }

    fn look(&mut self, name: &str) -> Answer {
        let endpoint = self
            .endpoints
            .get_mut(name)
            .ok_or_else(|| ApiError::new("ValidationException", "Could not find endpoint"))?;
        if endpoint.next.is_some() {
            endpoint.looks = endpoint.looks.saturating_sub(1);
            if endpoint.looks == 0 {
                let next = endpoint.next.take().unwrap_or_default();
                endpoint.status = "InService".to_owned();
                endpoint.reason = None;
                match std::mem::take(&mut self.ending) {
                    Ending::Good => endpoint.config = next,
                    Ending::Back(told) => endpoint.reason = Some(told),
                    Ending::Silent => {}
                    Ending::Failed(told) => {
                        endpoint.status = "Failed".to_owned();
                        endpoint.config = next;
                        endpoint.reason = Some(told);
                    }
                }
            }
        }
        let mut answer = json!({ "EndpointStatus": endpoint.status, "EndpointConfigName": endpoint.config });
        if let Some(told) = &endpoint.reason {
            answer["FailureReason"] = json!(told);
        }
        Ok(answer)
    }
}
