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

/// The reference of an image in this account's registry, whose manifest has this media type.
pub fn image(world: &mut World, tag: &str, media_type: &str) -> String {
    let digest = format!("sha256:{tag:0>64}");
    let image = crate::ecr::Image { media_type: media_type.into(), ..Default::default() };
    let repository = world.region("us-east-1").ecr.repositories.entry("app".into()).or_default();
    repository.images.insert(digest.clone(), image);
    repository.image_tags.insert(tag.into(), digest);
    format!("{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/app:{tag}")
}

/// The media type that SageMaker takes.
pub const DOCKER_V2: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Puts an object without bytes into bucket `b`.
pub fn object(world: &mut World, key: &str) {
    let bucket = world.s3.buckets.entry("b".into()).or_default();
    bucket.objects.insert(key.into(), vec![Default::default()]);
}

/// An endpoint `e` with variant `AllTraffic` of one instance, InService 300 seconds after `NOW`.
pub fn endpoint(world: &mut World) {
    config(world, "c1", "ml.g5.xlarge", 1);
    let input = serde_json::json!({"EndpointName": "e", "EndpointConfigName": "c1"});
    crate::world::call(world, &ctx(), "sagemaker", "CreateEndpoint", &input).unwrap();
    world.tick(NOW + 300_000);
}

/// An endpoint config with a model of the same name.
pub fn config(world: &mut World, name: &str, instance_type: &str, count: i64) {
    use serde_json::json;
    let (role, image) = (role(world), image(world, "a", DOCKER_V2));
    object(world, "m.tar.gz");
    let container = json!({"Image": image, "ModelDataUrl": "s3://b/m.tar.gz"});
    let model = json!({"ModelName": name, "ExecutionRoleArn": role, "PrimaryContainer": container});
    crate::world::call(world, &ctx(), "sagemaker", "CreateModel", &model).unwrap();
    let variant = json!({"VariantName": "AllTraffic", "ModelName": name, "InstanceType": instance_type, "InitialInstanceCount": count});
    let config = json!({"EndpointConfigName": name, "ProductionVariants": [variant]});
    crate::world::call(world, &ctx(), "sagemaker", "CreateEndpointConfig", &config).unwrap();
}
