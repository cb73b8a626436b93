use serde_json::json;

use super::*;
use crate::config::ScheduleEntry;

fn changes(before: &str, after: &str) -> Vec<ResourceChange> {
    diff(Some(&evaluated(&settings(before))), &evaluated(&settings(after)))
}

fn short(changes: &[ResourceChange]) -> Vec<(String, Action)> {
    changes.iter().map(|c| (c.logical_id.clone(), c.action)).collect()
}

#[test]
fn a_new_stack_adds_everything_in_order() {
    let new = evaluated(&settings(""));
    let changes = diff(None, &new);
    assert!(changes.iter().all(|c| c.action == Action::Add));
    assert_eq!(changes.iter().map(|c| c.logical_id.as_str()).collect::<Vec<_>>(), new.in_order());
}

#[test]
fn the_same_is_no_change() {
    assert_eq!(changes("autoscaling: {enabled: true}", "autoscaling: {enabled: true}"), []);
}

#[test]
fn only_the_properties_that_differ_are_named() {
    let changes = changes("", "lambda: {memory: 512, timeout: 80}");
    assert_eq!(short(&changes), [("ComfyUIFunction".into(), Action::Modify)]);
    assert_eq!(changes[0].properties, ["MemorySize", "Timeout"]);
}

#[test]
fn a_replacement_spreads_to_what_refers_to_it() {
    let changes = changes("iam: {role_path: /a/}", "iam: {role_path: /b/}");
    assert_eq!(
        short(&changes),
        [
            ("ComfyUIModelExecutionRole".into(), Action::Replace),
            ("ComfyUIModel".into(), Action::Replace),
            ("ComfyUIEndpointConfig".into(), Action::Replace),
            ("ComfyUIEndpoint".into(), Action::Modify),
            ("ComfyUIFunctionRole".into(), Action::Replace),
            ("ComfyUIFunction".into(), Action::Modify),
        ]
    );
    let retained: Vec<_> = changes.iter().filter(|c| c.retained).map(|c| c.logical_id.as_str()).collect();
    assert_eq!(retained, ["ComfyUIModel", "ComfyUIEndpointConfig"]);
    assert_eq!(changes[3].properties, ["EndpointConfigName"]);
}

#[test]
fn a_modified_role_modifies_nothing_else() {
    let changes = changes("", "storage: {kms_key_arn: 'arn:aws:kms:eu-west-1:123456789012:key/1'}");
    assert_eq!(short(&changes), [("ComfyUIModelExecutionRole".into(), Action::Modify)]);
}

#[test]
fn removals_come_last_and_backwards() {
    let changes = changes("autoscaling: {enabled: true}", "lambda: {memory: 512}");
    assert_eq!(
        short(&changes),
        [
            ("ComfyUIFunction".into(), Action::Modify),
            ("ComfyUIScalingPolicy".into(), Action::Remove),
            ("ComfyUIScalableTarget".into(), Action::Remove),
        ]
    );
    assert!(changes.iter().all(|c| !c.retained));
}

#[test]
fn policies_are_part_of_a_resource() {
    let before = evaluated(&settings(""));
    let mut after = before.clone();
    after.resources.get_mut(ids::MODEL).unwrap().deletion_policy = Some("Retain".into());
    let changes = diff(Some(&before), &after);
    assert_eq!(short(&changes), [("ComfyUIModel".into(), Action::Modify)]);
    assert_eq!(changes[0].properties, ["DeletionPolicy"]);
}

#[test]
fn another_type_under_the_same_id_is_a_replacement() {
    let before = evaluated(&settings(""));
    let mut after = before.clone();
    after.resources.get_mut("ComfyUIFunctionLogGroup").unwrap().kind = "AWS::S3::Bucket".into();
    assert!(short(&diff(Some(&before), &after)).contains(&("ComfyUIFunctionLogGroup".into(), Action::Replace)));
}

#[test]
fn stack_tags_touch_what_can_have_tags() {
    let old = evaluated(&settings("lambda: {url: none}\nautoscaling: {enabled: true}"));
    let new = evaluated(&settings("lambda: {url: none, memory: 512}"));
    let all = with_stack_tags(diff(Some(&old), &new), &new);
    let of = |id: &str| all.iter().find(|c| c.logical_id == id);
    assert_eq!(of(ids::FUNCTION).unwrap().properties, ["MemorySize", "Tags"]);
    assert_eq!(of(ids::ENDPOINT).unwrap().properties, ["Tags"]);
    assert_eq!(of(ids::FUNCTION_URL), None);
    assert_eq!(all.last().unwrap().action, Action::Remove);
}

#[test]
fn every_type_of_the_templates_is_in_the_table() {
    for text in [FOUNDATION, SERVICE] {
        for (id, resource) in parse(text).unwrap()["Resources"].as_object().unwrap() {
            let kind = resource["Type"].as_str().unwrap();
            assert!(CREATE_ONLY.iter().any(|(k, _)| *k == kind), "{id} {kind}");
        }
    }
    assert!(CREATE_ONLY.is_sorted());
    assert!(CREATE_ONLY.iter().all(|(_, properties)| properties.is_sorted()));
}

#[test]
fn autoscaling_is_in_the_way_of_another_instance_type() {
    let of = |yaml: &str| evaluated(&settings(yaml));
    let on = of("autoscaling: {enabled: true}");
    let bigger = "endpoint: {instance_type: ml.g5.2xlarge}";
    let bigger_on = format!("autoscaling: {{enabled: true}}\n{bigger}");
    assert!(split_instance_type_change(&on, &of(&bigger_on)));
    // CloudFormation would deregister too late.
    assert!(split_instance_type_change(&on, &of(bigger)));
    assert!(!split_instance_type_change(&of(""), &of(&bigger_on)));
    assert!(!split_instance_type_change(&on, &on));
    assert!(!split_instance_type_change(&on, &of("models: {version: v2}")));
    // A variant by another name is a removed variant.
    let mut renamed = on.clone();
    let config = renamed.resources.get_mut(ids::ENDPOINT_CONFIG).unwrap();
    config.properties["ProductionVariants"][0]["VariantName"] = json!("comfyui-sample");
    let target = renamed.resources.get_mut(ids::SCALABLE_TARGET).unwrap();
    target.properties["ResourceId"] = json!("endpoint/comfyui/variant/comfyui-sample");
    assert!(split_instance_type_change(&renamed, &on));
}

fn entry(name: &str, min: Option<u32>, max: Option<u32>) -> ScheduleEntry {
    ScheduleEntry {
        name: name.into(),
        when: "cron(0 8 * * ? *)".into(),
        timezone: Some("Europe/Berlin".into()),
        min,
        max,
    }
}

#[test]
fn schedules_are_edited_in_the_deployed_template() {
    let deployed = service(&settings("autoscaling: {enabled: true}"));
    let mut template = parse(&deployed.body).unwrap();
    assert_eq!(edit::schedules(&template), []);
    let entries = [entry("day", Some(2), Some(4)), entry("night", Some(1), None), entry("cap", None, Some(0))];
    edit::set_schedules(&mut template, &entries).unwrap();
    let again = parse(&edit::to_body(&template)).unwrap();
    assert_eq!(edit::schedules(&again), entries);
    let parameters = parameters(&settings("autoscaling: {enabled: true}"));
    let [old, new] = [&deployed.value, &again].map(|t| evaluate(t, &parameters, &pseudo()).unwrap());
    let changes = diff(Some(&old), &new);
    assert_eq!(short(&changes), [("ComfyUIScalableTarget".into(), Action::Modify)]);
    assert_eq!(changes[0].properties, ["ScheduledActions"]);
    edit::set_schedules(&mut template, &[]).unwrap();
    assert_eq!(template, deployed.value);
}

#[test]
fn schedules_need_a_scalable_target() {
    let mut template = json!({"Resources": {}});
    assert!(edit::set_schedules(&mut template, &[]).is_err());
    assert_eq!(edit::schedules(&template), []);
}
