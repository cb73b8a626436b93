use serde_json::{Value, json};

use crate::testing::{ctx, refusal, world};
use crate::world::{Answer, World, call};

fn quotas(world: &mut World, operation: &str, input: Value) -> Answer {
    call(world, &ctx(), "servicequotas", operation, &input)
}

#[test]
fn unknown_code_and_unknown_service() {
    let mut world = world();
    let input = json!({"ServiceCode": "sagemaker", "QuotaCode": "L-00000000"});
    assert!(refusal(quotas(&mut world, "GetServiceQuota", input)).starts_with("NoSuchResourceException: "));
    let refused = refusal(quotas(&mut world, "ListServiceQuotas", json!({"ServiceCode": "sage"})));
    assert!(refused.starts_with("NoSuchResourceException: "), "{refused}");
}

#[test]
fn every_type_is_listed_once_over_pages_with_a_code_of_its_own() {
    let mut world = world();
    let (mut codes, mut token) = (Vec::new(), None);
    loop {
        let mut input = json!({"ServiceCode": "sagemaker", "MaxResults": 7});
        if let Some(token) = token {
            input["NextToken"] = token;
        }
        let got = quotas(&mut world, "ListServiceQuotas", input).unwrap();
        for quota in got["Quotas"].as_array().unwrap() {
            assert_eq!(quota["Value"], 20.0);
            codes.push(quota["QuotaCode"].as_str().unwrap().to_owned());
        }
        token = got.get("NextToken").cloned();
        if token.is_none() {
            break;
        }
    }
    let count = codes.len();
    codes.sort();
    codes.dedup();
    assert!(count > 30 && codes.len() == count);
}

#[test]
fn a_test_sets_a_quota_for_one_region() {
    let mut world = world();
    super::set(&mut world, &json!({"ml.g5.xlarge": 3})).unwrap();
    assert_eq!(super::endpoint_limit(&world, "us-east-1", "ml.g5.xlarge"), 3);
    assert_eq!(super::endpoint_limit(&world, "eu-west-1", "ml.g5.xlarge"), 20);
    assert!(super::set(&mut world, &json!({"ml.huge": 3})).is_err());
    assert!(super::set(&mut world, &json!({"ml.g5.xlarge": -1})).is_err());
}
