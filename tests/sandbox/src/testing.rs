//! What the unit tests of the services share.

use crate::world::{ACCOUNT, Answer, Ctx, World};

/// Time of all test requests: 2026-01-01.
pub const NOW: i64 = 1_767_225_600_000;

/// An empty world where an AWS second takes a second.
pub fn world() -> World {
    World { time_scale: 1.0, url: "http://127.0.0.1:1".into(), ..World::default() }
}

/// A request at `NOW` in us-east-1.
pub fn ctx() -> Ctx {
    at(0)
}

/// A request so many seconds after `NOW`.
pub fn at(seconds: i64) -> Ctx {
    Ctx { region: "us-east-1".into(), request_id: "r".into(), now: NOW + seconds * 1000 }
}

/// `code: message` of what must be an error.
pub fn refusal(answer: Answer) -> String {
    match answer {
        Ok(output) => panic!("was not refused: {output}"),
        Err(error) => format!("{}: {}", error.code, error.message),
    }
}

/// An execution role that SageMaker and Lambda may assume; its ARN.
pub fn role(world: &mut World) -> String {
    let trust = r#"{"Statement":{"Effect":"Allow","Principal":{"Service":["sagemaker.amazonaws.com","lambda.amazonaws.com"]},"Action":"sts:AssumeRole"}}"#;
    let input = serde_json::json!({"RoleName": "exec", "AssumeRolePolicyDocument": trust});
    if let Err(error) = crate::world::call(world, &ctx(), "iam", "CreateRole", &input) {
        assert_eq!(error.code, "EntityAlreadyExists");
    }
    format!("arn:aws:iam::{ACCOUNT}:role/exec")
}
