//! What IAM demands of a policy document.

use serde_json::Value;

use crate::world::{ACCOUNT, ApiError};

fn malformed(text: impl Into<String>) -> ApiError {
    ApiError::new("MalformedPolicyDocument", text)
}

/// One value or a list of them.
pub(super) fn each(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Null => Vec::new(),
        one => vec![one],
    }
}

fn statements(document: &str) -> Result<Vec<Value>, ApiError> {
    let policy: Value = serde_json::from_str(document).map_err(|_| malformed("This policy contains invalid Json"))?;
    if !policy.is_object() {
        return Err(malformed("Syntax errors in policy."));
    }
    if policy.get("Version").is_some_and(|v| !matches!(v.as_str(), Some("2012-10-17" | "2008-10-17"))) {
        return Err(malformed("The policy must contain a valid version string."));
    }
    if let Some(key) =
        policy.as_object().and_then(|p| p.keys().find(|k| !["Version", "Id", "Statement"].contains(&k.as_str())))
    {
        return Err(malformed(format!("Syntax errors in policy. Unknown field {key}")));
    }
    let list: Vec<Value> = each(&policy["Statement"]).into_iter().cloned().collect();
    if list.is_empty() {
        return Err(malformed("Syntax errors in policy. Missing required field Statement"));
    }
    for statement in &list {
        if !matches!(statement["Effect"].as_str(), Some("Allow" | "Deny")) {
            return Err(malformed("Syntax errors in policy. Effect must be Allow or Deny"));
        }
        let actions: Vec<&Value> =
            each(&statement["Action"]).into_iter().chain(each(&statement["NotAction"])).collect();
        if actions.is_empty() {
            return Err(malformed("Policy statement must contain actions."));
        }
        for action in actions {
            if !action
                .as_str()
                .is_some_and(|a| a == "*" || a.split_once(':').is_some_and(|(v, n)| !v.is_empty() && !n.is_empty()))
            {
                return Err(malformed("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."));
            }
        }
    }
    Ok(list)
}

/// A policy that says what an identity may do.
pub fn check_identity(document: &str) -> Result<(), ApiError> {
    for statement in statements(document)? {
        if statement.get("Principal").or_else(|| statement.get("NotPrincipal")).is_some() {
            return Err(malformed("Policy document should not specify a principal."));
        }
        let resources: Vec<&Value> =
            each(&statement["Resource"]).into_iter().chain(each(&statement["NotResource"])).collect();
        if resources.is_empty() {
            return Err(malformed("Policy statement must contain resources."));
        }
        for resource in resources {
            let text = resource.as_str().unwrap_or_default();
            if text != "*" && (!text.starts_with("arn:") || text.split(':').count() < 6) {
                return Err(malformed(format!("Resource {text} must be in ARN format or \"*\".")));
            }
        }
    }
    Ok(())
}

/// A policy that says who may assume a role.
pub fn check_trust(document: &str) -> Result<(), ApiError> {
    for statement in statements(document)? {
        if statement.get("Resource").or_else(|| statement.get("NotResource")).is_some() {
            return Err(malformed("Has prohibited field Resource"));
        }
        if statement.get("Principal").or_else(|| statement.get("NotPrincipal")).is_none() {
            return Err(malformed("Missing required field Principal"));
        }
        let foreign = |action: &&Value| !action.as_str().is_some_and(|a| a.starts_with("sts:"));
        if each(&statement["Action"]).iter().any(foreign) {
            return Err(malformed("AssumeRole policy may only specify STS AssumeRole actions."));
        }
        for service in each(&statement["Principal"]["Service"]) {
            let text = service.as_str().unwrap_or_default();
            if !text.ends_with(".amazonaws.com") {
                return Err(malformed(format!("Invalid principal in policy: \"SERVICE\":\"{text}\"")));
            }
        }
    }
    Ok(())
}

/// Whether a trust policy lets a service assume the role. Conditions are taken as met.
pub fn trusts(document: &str, service: &str) -> bool {
    assumable(document, |principal| each(&principal["Service"]).iter().any(|s| s.as_str() == Some(service)))
}

/// Whether a trust policy lets a principal of this account assume the role, by its own ARN or by the account.
pub fn trusts_principal(document: &str, arn: &str) -> bool {
    let root = format!("arn:aws:iam::{ACCOUNT}:root");
    assumable(document, |principal| {
        principal == "*"
            || each(&principal["AWS"])
                .iter()
                .filter_map(|p| p.as_str())
                .any(|p| p == "*" || p == ACCOUNT || p == root || p == arn)
    })
}

fn assumable(document: &str, who: impl Fn(&Value) -> bool) -> bool {
    statements(document).unwrap_or_default().iter().any(|statement| {
        statement["Effect"] == "Allow"
            && each(&statement["Action"]).iter().any(|a| matches!(a.as_str(), Some("sts:AssumeRole" | "sts:*")))
            && who(&statement["Principal"])
    })
}
