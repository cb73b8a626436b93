//! Who a caller is, and what policies let the caller do.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::policy::each;
use crate::input::unique_id;
use crate::world::{ACCOUNT, KEY, World};

/// Somebody who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Not signed.
    Anonymous,
    /// A user. `sandbox` may do everything, `denied` nothing.
    User(String),
    /// A session of a role.
    Role {
        /// The role's ARN.
        arn: String,
        /// The session's name.
        session: String,
        /// Unique id of the role.
        id: String,
    },
}

/// Temporary credentials of a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Access key id.
    pub key: String,
    /// Secret access key.
    pub secret: String,
    /// Session token.
    pub token: String,
    /// The role's ARN.
    pub role: String,
    /// The session's name.
    pub name: String,
    /// Milliseconds since 1970.
    pub expires: i64,
}

impl Caller {
    /// The ARN that policies and errors name.
    pub fn arn(&self) -> String {
        match self {
            Caller::Anonymous => "anonymous".to_owned(),
            Caller::User(name) => format!("arn:aws:iam::{ACCOUNT}:user/{name}"),
            Caller::Role { arn, session, .. } => {
                let name = arn.rsplit('/').next().unwrap_or(arn);
                format!("arn:aws:sts::{ACCOUNT}:assumed-role/{name}/{session}")
            }
        }
    }

    /// Its unique id.
    pub fn id(&self) -> String {
        match self {
            Caller::Anonymous => "anonymous".to_owned(),
            Caller::User(name) => format!("AIDA{}", name.to_uppercase()),
            Caller::Role { id, session, .. } => format!("{id}:{session}"),
        }
    }
}

/// How long after its end a session is known, in milliseconds.
const REMEMBERED: i64 = 24 * 60 * 60 * 1000;

/// Gives out credentials of a role for so many milliseconds; none if there is no such role.
pub fn assume(world: &mut World, role: &str, name: &str, now: i64, millis: i64) -> Option<Session> {
    if !world.iam.roles.iter().any(|(n, r)| r.arn(n) == role) {
        return None;
    }
    let session = Session {
        key: unique_id("ASIA", 16),
        secret: unique_id("", 40),
        token: unique_id("", 96),
        role: role.to_owned(),
        name: name.to_owned(),
        expires: now.saturating_add(millis),
    };
    // One that is over is still known to be: its requests are answered otherwise than those of an unknown key.
    world.iam.sessions.retain(|_, s| s.expires > now - REMEMBERED);
    world.iam.sessions.insert(session.key.clone(), session.clone());
    Some(session)
}

/// Ends all sessions, as time would.
pub fn expire(world: &mut World, now: i64) {
    world.iam.sessions.values_mut().for_each(|session| session.expires = now);
}

/// The session of an access key id.
pub fn session<'a>(world: &'a World, key: &str) -> Option<&'a Session> {
    world.iam.sessions.get(key)
}

/// Whose access key id this is, and the secret key with it. None if nobody's.
pub fn owner(world: &World, key: &str) -> Option<(Caller, String)> {
    if let Some(session) = session(world, key) {
        let id = world.iam.roles.iter().find(|(name, role)| role.arn(name) == session.role)?.1.id.clone();
        let caller = Caller::Role { arn: session.role.clone(), session: session.name.clone(), id };
        return Some((caller, session.secret.clone()));
    }
    match key {
        KEY | "denied" | "expired" => {
            let name = if key == KEY { "sandbox" } else { key };
            // One secret key serves all made-up users.
            Some((Caller::User(name.to_owned()), KEY.to_owned()))
        }
        _ => None,
    }
}

/// What one action on one resource is asked with.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// `service:Action`.
    pub action: &'a str,
    /// ARN.
    pub resource: &'a str,
    /// Condition keys and their values.
    pub context: &'a [(&'a str, &'a str)],
}

/// Whether the caller may, by its own policies or by the resource's. Within one account either is enough, and a Deny
/// in either ends it (AWS doc: Policy evaluation logic).
pub fn allowed(world: &World, caller: &Caller, resource_policy: &[Value], question: Question<'_>) -> bool {
    let arn = caller.arn();
    let role = match caller {
        Caller::Role { arn, .. } => Some(arn.as_str()),
        _ => None,
    };
    let named = |statement: &Value| {
        let principal = &statement["Principal"];
        principal == "*"
            || each(&principal["AWS"])
                .iter()
                .filter_map(|p| p.as_str())
                .any(|p| p == "*" || (*caller != Caller::Anonymous && (p == arn || Some(p) == role)))
    };
    let by_resource: Vec<&Value> = resource_policy.iter().filter(|s| named(s)).collect();
    let own = identity_statements(world, caller);
    let all = || by_resource.iter().copied().chain(own.iter());
    let says = |effect: &str| all().any(|s| s["Effect"] == effect && applies(s, question));
    !says("Deny") && says("Allow")
}

/// Whether the caller's own policies allow an action on anything.
pub fn named(world: &World, caller: &Caller, action: &str) -> bool {
    identity_statements(world, caller).iter().any(|statement| {
        statement["Effect"] == "Allow"
            && each(&statement["Action"]).iter().filter_map(|a| a.as_str()).any(|a| like(a, action, true))
    })
}

fn identity_statements(world: &World, caller: &Caller) -> Vec<Value> {
    let every = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
    match caller {
        Caller::User(name) if name == "sandbox" => vec![every],
        Caller::Anonymous | Caller::User(_) => Vec::new(),
        Caller::Role { arn, .. } => {
            let Some((_, role)) = world.iam.roles.iter().find(|(name, role)| role.arn(name) == *arn) else {
                return Vec::new();
            };
            let inline = role.inline.values().filter_map(|d| serde_json::from_str::<Value>(d).ok());
            let managed = role.attached.iter().map(|arn| managed(arn));
            inline.chain(managed).flat_map(|d| each(&d["Statement"]).into_iter().cloned().collect::<Vec<_>>()).collect()
        }
    }
}

/// The managed policies that matter here, by what their reference pages say they allow (AWS doc: AWS managed policy
/// reference). Others grant nothing.
fn managed(arn: &str) -> Value {
    let allow = |actions: &[&str]| json!({"Statement": {"Effect": "Allow", "Action": actions, "Resource": "*"}});
    match arn.rsplit('/').next().unwrap_or(arn) {
        "AdministratorAccess" => allow(&["*"]),
        "AWSLambdaBasicExecutionRole" => allow(&["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"]),
        "AmazonSageMakerFullAccess" => allow(&["sagemaker:*", "logs:*", "s3:GetObject", "s3:ListBucket", "ecr:*"]),
        "AWSLambda_FullAccess" => allow(&["lambda:*"]),
        other => {
            tracing::warn!(policy = other, "a managed policy that the sandbox does not know grants nothing");
            Value::Null
        }
    }
}

fn applies(statement: &Value, question: Question<'_>) -> bool {
    let any = |patterns: &Value, text: &str, any_case: bool| {
        each(patterns).iter().filter_map(|p| p.as_str()).any(|p| like(p, text, any_case))
    };
    let action = if statement["NotAction"].is_null() {
        any(&statement["Action"], question.action, true)
    } else {
        !any(&statement["NotAction"], question.action, true)
    };
    let resource = if statement["NotResource"].is_null() {
        any(&statement["Resource"], question.resource, false)
    } else {
        !any(&statement["NotResource"], question.resource, false)
    };
    action && resource && conditions(&statement["Condition"], question.context)
}

/// Whether all conditions hold. An operator that is not known here never holds.
fn conditions(blocks: &Value, context: &[(&str, &str)]) -> bool {
    blocks.as_object().into_iter().flatten().all(|(operator, keys)| {
        let (operator, if_exists) = match operator.strip_suffix("IfExists") {
            Some(operator) => (operator, true),
            None => (operator.as_str(), false),
        };
        keys.as_object().into_iter().flatten().all(|(key, wanted)| {
            let Some((_, value)) = context.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)) else { return if_exists };
            let texts: Vec<String> =
                each(wanted).iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
            let some = |holds: &dyn Fn(&str) -> bool| texts.iter().any(|t| holds(t));
            match operator {
                "StringEquals" | "ArnEquals" => some(&|t| t == *value),
                "StringEqualsIgnoreCase" | "Bool" => some(&|t| t.eq_ignore_ascii_case(value)),
                "StringLike" | "ArnLike" => some(&|t| like(t, value, false)),
                "StringNotEquals" => !some(&|t| t == *value),
                "StringNotLike" => !some(&|t| like(t, value, false)),
                _ => false,
            }
        })
    })
}

/// `*` stands for any characters, `?` for one.
fn like(pattern: &str, text: &str, any_case: bool) -> bool {
    let fold = |c: char| if any_case { c.to_ascii_lowercase() } else { c };
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().map(fold).collect(), text.chars().map(fold).collect());
    let (mut p, mut t) = (0, 0);
    // Where the last star is, and where in the text it was tried last.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, tried)) => {
                    star = Some((at, tried + 1));
                    (p, t) = (at + 1, tried + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wildcards() {
        for (pattern, text, holds) in [
            ("*", "", true),
            ("lambda:Invoke*", "lambda:InvokeFunction", true),
            ("lambda:Invoke*", "lambda:GetFunction", false),
            ("a*b*c", "aXbXbc", true),
            ("a*b?c", "abc", false),
            ("arn:*:f", "arn:aws:lambda:f", true),
            ("f", "ff", false),
        ] {
            assert_eq!(like(pattern, text, false), holds, "{pattern} {text}");
        }
        assert!(like("LAMBDA:invoke*", "lambda:InvokeFunction", true));
    }

    proptest! {
        #[test]
        fn wildcards_agree_with_a_regex(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            let regex = format!("^{}$", pattern.replace('*', ".*").replace('?', "."));
            prop_assert_eq!(like(&pattern, &text, false), regex::Regex::new(&regex).unwrap().is_match(&text));
        }
    }

    #[test]
    fn statements_are_weighed() {
        let world = World::default();
        let context = [("lambda:FunctionUrlAuthType", "NONE")];
        let question = Question { action: "lambda:InvokeFunctionUrl", resource: "arn:f", context: &context };
        let public = |condition: Value| {
            vec![
                json!({"Effect": "Allow", "Principal": "*", "Action": "lambda:InvokeFunctionUrl", "Resource": "arn:f", "Condition": condition}),
            ]
        };
        let ask = |statements: &[Value]| allowed(&world, &Caller::Anonymous, statements, question);
        assert!(ask(&public(json!({}))));
        assert!(ask(&public(json!({"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}}))));
        assert!(!ask(&public(json!({"StringEquals": {"lambda:FunctionUrlAuthType": "AWS_IAM"}}))));
        assert!(!ask(&public(json!({"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}))), "the key is absent");
        assert!(ask(&public(json!({"BoolIfExists": {"lambda:InvokedViaFunctionUrl": "true"}}))));
        assert!(!ask(&public(json!({"Sounds": {"lambda:FunctionUrlAuthType": "NONE"}}))));
        let mut denied = public(json!({}));
        denied.push(json!({"Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "lambda:*", "Resource": "*"}));
        assert!(!ask(&denied));
        let account = vec![
            json!({"Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{ACCOUNT}:root")}, "Action": "*", "Resource": "*"}),
        ];
        let user = Caller::User("denied".into());
        assert!(!allowed(&world, &user, &account, question), "the account's own policies decide");
        assert!(allowed(&world, &Caller::User("sandbox".into()), &[], question));
    }
}
