use serde_json::{Value, json};

use crate::testing::{ctx, refusal, world};
use crate::world::{World, call};

const TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"sagemaker.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;

fn iam(world: &mut World, operation: &str, input: Value) -> crate::world::Answer {
    call(world, &ctx(), "iam", operation, &input)
}

fn with_role() -> World {
    let mut world = world();
    iam(&mut world, "CreateRole", json!({"RoleName": "r", "AssumeRolePolicyDocument": TRUST})).unwrap();
    world
}

fn inline(resource: &str) -> Value {
    let document = json!({"Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": resource}]});
    json!({"RoleName": "r", "PolicyName": "p", "PolicyDocument": document.to_string()})
}

#[test]
fn role_exists() {
    let mut world = with_role();
    let again = iam(&mut world, "CreateRole", json!({"RoleName": "R", "AssumeRolePolicyDocument": TRUST}));
    assert_eq!(refusal(again), "EntityAlreadyExists: Role with name R already exists.");
}

#[test]
fn delete_role_inline_and_attached() {
    let mut world = with_role();
    iam(&mut world, "PutRolePolicy", inline("*")).unwrap();
    let refused = refusal(iam(&mut world, "DeleteRole", json!({"RoleName": "r"})));
    assert_eq!(refused, "DeleteConflict: Cannot delete entity, must delete policies first.");
    iam(&mut world, "DeleteRolePolicy", json!({"RoleName": "r", "PolicyName": "p"})).unwrap();
    let policy = json!({"RoleName": "r", "PolicyArn": "arn:aws:iam::aws:policy/ReadOnlyAccess"});
    iam(&mut world, "AttachRolePolicy", policy.clone()).unwrap();
    let refused = refusal(iam(&mut world, "DeleteRole", json!({"RoleName": "r"})));
    assert_eq!(refused, "DeleteConflict: Cannot delete entity, must detach all policies first.");
    iam(&mut world, "DetachRolePolicy", policy).unwrap();
    iam(&mut world, "DeleteRole", json!({"RoleName": "r"})).unwrap();
    assert!(refusal(iam(&mut world, "GetRole", json!({"RoleName": "r"}))).starts_with("NoSuchEntity: "));
}

#[test]
fn trust_policy() {
    let mut world = world();
    for (document, wanted) in [
        ("{", "invalid Json"),
        (r#"{"Statement":[]}"#, "Statement"),
        (r#"{"Statement":{"Effect":"Allow","Action":"sts:AssumeRole"}}"#, "Principal"),
        (r#"{"Statement":{"Effect":"Allow","Principal":"*","Action":"s3:GetObject"}}"#, "STS"),
        (r#"{"Statement":{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole","Resource":"*"}}"#, "Resource"),
        (
            r#"{"Statement":{"Effect":"Allow","Principal":{"Service":"sagemaker"},"Action":"sts:AssumeRole"}}"#,
            "principal",
        ),
        (
            r#"{"Version":"2020-01-01","Statement":{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole"}}"#,
            "version",
        ),
    ] {
        let input = json!({"RoleName": "r", "AssumeRolePolicyDocument": document});
        let refused = refusal(iam(&mut world, "CreateRole", input));
        assert!(refused.starts_with("MalformedPolicyDocument: ") && refused.contains(wanted), "{document}: {refused}");
    }
}

#[test]
fn trust_is_by_service() {
    let world = with_role();
    assert!(super::trusts(&world, "arn:aws:iam::123456789012:role/r", "sagemaker.amazonaws.com"));
    assert!(!super::trusts(&world, "arn:aws:iam::123456789012:role/r", "lambda.amazonaws.com"));
    assert!(!super::trusts(&world, "arn:aws:iam::123456789012:role/q", "sagemaker.amazonaws.com"));
}

#[test]
fn inline_policy() {
    let mut world = with_role();
    let refused = refusal(iam(&mut world, "PutRolePolicy", inline("bucket")));
    assert_eq!(refused, "MalformedPolicyDocument: Resource bucket must be in ARN format or \"*\".");
    let mut trust = inline("*");
    trust["PolicyDocument"] = json!(TRUST);
    assert!(refusal(iam(&mut world, "PutRolePolicy", trust)).contains("principal"));
}

#[test]
fn inline_size() {
    let mut world = with_role();
    let fits = format!("arn:aws:s3:::{}", "a".repeat(6000));
    iam(&mut world, "PutRolePolicy", inline(&fits)).unwrap();
    // Replacing itself does not count twice, a second one does.
    iam(&mut world, "PutRolePolicy", inline(&fits)).unwrap();
    let mut second = inline(&fits);
    second["PolicyName"] = json!("q");
    assert!(refusal(iam(&mut world, "PutRolePolicy", second)).starts_with("LimitExceeded: Maximum policy size"));
}

#[test]
fn attached_count_and_attach_unknown() {
    let mut world = with_role();
    let attach = |i: u32| json!({"RoleName": "r", "PolicyArn": format!("arn:aws:iam::aws:policy/P{i}")});
    for i in 0..10 {
        iam(&mut world, "AttachRolePolicy", attach(i)).unwrap();
    }
    iam(&mut world, "AttachRolePolicy", attach(3)).unwrap();
    assert!(refusal(iam(&mut world, "AttachRolePolicy", attach(10))).contains("PoliciesPerRole: 10"));
    let own = json!({"RoleName": "r", "PolicyArn": "arn:aws:iam::123456789012:policy/mine"});
    assert!(refusal(iam(&mut world, "AttachRolePolicy", own)).starts_with("NoSuchEntity: "));
}

#[test]
fn documents_come_back_url_encoded() {
    let mut world = with_role();
    let role = iam(&mut world, "GetRole", json!({"RoleName": "r"})).unwrap();
    let shown = role["Role"]["AssumeRolePolicyDocument"].as_str().unwrap();
    assert!(shown.starts_with("%7B%22Version%22%3A%222012-10-17%22"), "{shown}");
}
