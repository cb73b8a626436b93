//! The plan as a function of settings, disk and account.

use super::*;
use crate::cloud::{Endpoint, Stack, Variant};
use crate::config::ScheduleEntry;
use crate::stack::Action;

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

pub(crate) fn settings(more: &str) -> Settings {
    let config = serde_yaml::from_str(&format!("version: 1\napp: comfy\nregion: eu-west-1\n{more}")).expect("a config");
    Settings::for_tests(config)
}

pub(crate) fn local() -> Local {
    Local {
        model: LocalModel::Tree {
            id: "f".repeat(64),
            key: "models/ffffffffffffffffffffffff/model.tar.gz".into(),
            bytes: 1000,
            at_most: false,
            stored: 1000,
            files: 1,
        },
        image: LocalImage::Context { tag: "c-1".into() },
        function: Some(LocalFunction {
            key: "functions/a/function.zip".into(),
            bytes: 10,
            architecture: Architecture::X86_64,
        }),
    }
}

/// Other files than those of [`local`].
pub(crate) fn another_model(bytes: u64, files: usize) -> LocalModel {
    let key = "models/eeeeeeeeeeeeeeeeeeeeeeee/model.tar.gz".into();
    LocalModel::Tree { id: "e".repeat(64), key, bytes, at_most: false, stored: bytes, files }
}

pub(crate) fn empty() -> World {
    World {
        account: "123456789012".into(),
        foundation: None,
        service: None,
        bucket: None,
        existing: Vec::new(),
        image: None,
        model_crc64nvme: None,
        model_present: false,
        model_bytes: None,
        function_present: false,
        endpoint: None,
        config: None,
        scaling: None,
        last_record: 0,
        open_record: None,
    }
}

fn stack_of(name: &str, parameters: Map, tags: Map) -> Stack {
    Stack {
        name: name.into(),
        id: format!("arn:aws:cloudformation:eu-west-1:123456789012:stack/{name}/1"),
        status: "CREATE_COMPLETE".into(),
        reason: None,
        parameters,
        outputs: Map::new(),
        tags,
        protected: false,
    }
}

/// The account after `settings` were deployed.
pub(crate) fn deployed(settings: &Settings, local: &Local) -> World {
    let before = World { image: Some(DIGEST.into()), ..empty() };
    let plan = up(settings, local, &before).expect("a plan");
    let foundation = plan.foundation.expect("a foundation");
    let service = plan.service.last().expect("a service").clone();
    let config = format!("comfy-{}", service.parameters["ModelVersion"]);
    World {
        foundation: Some(Deployed {
            stack: stack_of(&foundation.stack, foundation.parameters, foundation.tags),
            body: foundation.body,
        }),
        service: Some(Deployed {
            stack: stack_of(&service.stack, service.parameters, service.tags),
            body: service.body,
        }),
        model_present: true,
        function_present: true,
        last_record: 1,
        endpoint: Some(Endpoint {
            name: "comfy".into(),
            arn: "arn".into(),
            status: "InService".into(),
            config,
            failure: None,
            variants: vec![Variant {
                name: "AllTraffic".into(),
                current: Some(2),
                desired: Some(2),
                images: Vec::new(),
            }],
            stage: None,
        }),
        ..before
    }
}

fn actions(plan: &Plan) -> Vec<(&str, Action)> {
    plan.service.iter().flat_map(|s| &s.changes).map(|c| (c.logical_id.as_str(), c.action)).collect()
}

#[test]
fn an_empty_account_gets_everything() {
    let plan = up(&settings(""), &local(), &empty()).expect("a plan");
    assert!(matches!(plan.image, ImagePlan::Build { .. }));
    assert!(matches!(plan.model, ModelPlan::Upload { .. }));
    assert!(plan.function.as_ref().is_some_and(|f| f.upload));
    assert_eq!(plan.foundation.as_ref().map(|f| f.kind), Some(StepKind::Create));
    assert_eq!(plan.service[0].kind, StepKind::Create);
    assert!(actions(&plan).iter().all(|(_, a)| *a == Action::Add));
    assert_eq!(
        plan.growth,
        Some(Growth { instance_type: "ml.g5.xlarge".into(), instances: 1, download_timeout: Some(1200) })
    );
    assert_eq!(plan.target.record, 1);
}

#[test]
fn an_unchanged_run_is_an_empty_plan() {
    for more in ["", "autoscaling: {enabled: true}", "lambda: {url: none}", "models: {packaging: uncompressed}"] {
        let settings = settings(more);
        let plan = up(&settings, &local(), &deployed(&settings, &local())).expect("a plan");
        assert!(plan.is_empty(), "{more}: {plan:?}");
        assert_eq!(plan.growth, None);
    }
}

#[test]
fn a_new_model_replaces_model_and_config_and_needs_a_second_fleet() {
    let settings = settings("");
    let mut world = deployed(&settings, &local());
    world.model_present = false;
    let mut changed = local();
    changed.model = another_model(1000, 1);
    let plan = up(&settings, &changed, &world).expect("a plan");
    let all = actions(&plan);
    assert!(all.contains(&("ComfyUIModel", Action::Replace)), "{all:?}");
    assert!(all.contains(&("ComfyUIEndpointConfig", Action::Replace)), "{all:?}");
    assert!(all.contains(&("ComfyUIEndpoint", Action::Modify)), "{all:?}");
    assert!(!all.iter().any(|(id, _)| id.starts_with("ComfyUIFunction")), "{all:?}");
    // Two run, and the live number is kept.
    assert_eq!(
        plan.growth,
        Some(Growth { instance_type: "ml.g5.xlarge".into(), instances: 2, download_timeout: Some(1200) })
    );
    assert!(plan.service[0].parameters["ModelVersion"].ends_with("-2"), "named after the record");
    assert_eq!(plan.foundation, None);
}

#[test]
fn the_same_instance_type_change_takes_one_step_or_two() {
    for (autoscaling, steps) in [("", 1), ("autoscaling: {enabled: true}\n", 2)] {
        let before = settings(autoscaling);
        let world = deployed(&before, &local());
        let after = settings(&format!("{autoscaling}endpoint: {{instance_type: ml.g6.xlarge}}"));
        let plan = up(&after, &local(), &world).expect("a plan");
        assert_eq!(plan.service.len(), steps);
        assert_eq!(plan.growth.as_ref().map(|g| g.instance_type.as_str()), Some("ml.g6.xlarge"));
        if steps == 2 {
            assert_eq!(plan.service[0].parameters["SageMakerAutoScaling"], "false");
            assert_eq!(plan.service[0].parameters["SageMakerInstanceType"], "ml.g5.xlarge");
            assert!(actions(&plan).contains(&("ComfyUIScalableTarget", Action::Remove)));
            assert!(actions(&plan).contains(&("ComfyUIScalableTarget", Action::Add)));
            assert!(plan.notes.iter().any(|n| n.contains("two stack updates")));
        }
    }
}

#[test]
fn what_sagemaker_rolled_back_silently_is_deployed_again_under_a_new_name() {
    let settings = settings("");
    let mut world = deployed(&settings, &local());
    let believed = world.believed_config().expect("a config");
    if let Some(e) = &mut world.endpoint {
        e.config = "comfy-v0-00000000-0".into();
    }
    let plan = up(&settings, &local(), &world).expect("a plan");
    assert_eq!(plan.service.len(), 1);
    assert_ne!(format!("comfy-{}", plan.service[0].parameters["ModelVersion"]), believed);
    assert!(plan.notes.iter().any(|n| n.contains("rolled back")));
}

#[test]
fn a_running_operation_is_followed_if_it_is_ours_and_waited_for_if_not() {
    let settings = settings("");
    let mut world = deployed(&settings, &local());
    if let Some(s) = &mut world.service {
        s.stack.status = "UPDATE_IN_PROGRESS".into();
    }
    let plan = up(&settings, &local(), &world).expect("a plan");
    assert_eq!(plan.service[0].kind, StepKind::Attach);
    let other = self::settings("lambda: {memory: 512}");
    assert_eq!(up(&other, &local(), &world).expect_err("busy").kind(), Kind::Busy);
}

#[test]
fn failed_first_creations_are_made_again_and_shells_reused() {
    let settings = settings("");
    for (status, kind) in [
        ("ROLLBACK_COMPLETE", StepKind::Recreate),
        ("REVIEW_IN_PROGRESS", StepKind::Create),
        ("CREATE_FAILED", StepKind::Recreate),
    ] {
        let mut world = deployed(&settings, &local());
        if let Some(s) = &mut world.service {
            s.stack.status = status.into();
            s.body = String::new();
        }
        world.endpoint = None;
        let plan = up(&settings, &local(), &world).expect("a plan");
        assert_eq!(plan.service[0].kind, kind, "{status}");
    }
    let mut world = deployed(&settings, &local());
    if let Some(s) = &mut world.service {
        s.stack.status = "UPDATE_ROLLBACK_FAILED".into();
    }
    let error = up(&settings, &local(), &world).expect_err("a person must act");
    assert!(error.hint().is_some_and(|h| h.contains("continue-update-rollback")));
}

#[test]
fn protection_is_a_change_of_its_own() {
    let before = settings("");
    let world = deployed(&before, &local());
    let plan = up(&settings("protect: true"), &local(), &world).expect("a plan");
    assert!(plan.service.is_empty() && !plan.is_empty());
    assert_eq!(plan.protection.len(), 2);
}

#[test]
fn new_tags_touch_what_can_carry_them() {
    let before = settings("");
    let world = deployed(&before, &local());
    let plan = up(&settings("tags: {team: art}"), &local(), &world).expect("a plan");
    assert!(!plan.service.is_empty());
    assert!(actions(&plan).iter().all(|(_, a)| *a == Action::Modify), "{:?}", actions(&plan));
}

#[test]
fn scale_touches_the_target_and_the_policy_only() {
    let off = settings("");
    let world = deployed(&off, &local());
    let plan = scale(&off, &world, &Scale::Set { min: Some(1), max: Some(4) }).expect("a plan");
    assert_eq!(actions(&plan), [("ComfyUIScalableTarget", Action::Add), ("ComfyUIScalingPolicy", Action::Add)]);

    let on = settings("autoscaling: {enabled: true}");
    let world = deployed(&on, &local());
    let plan = scale(&on, &world, &Scale::Set { min: None, max: Some(4) }).expect("a plan");
    assert_eq!(plan.service[0].parameters["MaxCapacity"], "4");
    assert!(
        actions(&plan).iter().all(|(id, a)| *id == "ComfyUIScalableTarget" && *a == Action::Modify),
        "{:?}",
        actions(&plan)
    );
    assert!(scale(&on, &world, &Scale::Set { min: Some(9), max: None }).is_err(), "min over max");

    let plan = scale(&on, &world, &Scale::Off).expect("a plan");
    assert!(actions(&plan).iter().all(|(_, a)| *a == Action::Remove));

    let night = ScheduleEntry {
        name: "night".into(),
        when: "cron(0 20 * * ? *)".into(),
        timezone: None,
        min: None,
        max: Some(1),
    };
    assert_eq!(
        scale(&off, &deployed(&off, &local()), &Scale::Add(night.clone())).expect_err("off").kind(),
        Kind::Usage
    );
    let plan = scale(&on, &world, &Scale::Add(night.clone())).expect("a plan");
    assert_eq!(actions(&plan), [("ComfyUIScalableTarget", Action::Modify)]);
    assert!(plan.service[0].body.contains("night"));
    assert!(scale(&on, &world, &Scale::Remove("day".into())).is_err());
    // The same again changes nothing.
    let mut scheduled = world.clone();
    if let Some(s) = &mut scheduled.service {
        s.body = plan.service[0].body.clone();
    }
    assert!(scale(&on, &scheduled, &Scale::Add(night)).expect("a plan").is_empty());
}

#[test]
fn update_model_moves_the_model_and_nothing_else() {
    let before = settings("");
    let world = deployed(&before, &local());
    // The file says something else about the function by now; that must not go along.
    let after = settings("lambda: {memory: 1024}\nmodels: {version: v2}");
    let model = another_model(1000, 1);
    let plan = update_model(&after, &model, &world).expect("a plan");
    let all = actions(&plan);
    assert!(
        all.contains(&("ComfyUIModel", Action::Replace)) && all.contains(&("ComfyUIEndpoint", Action::Modify)),
        "{all:?}"
    );
    assert!(!all.iter().any(|(id, _)| id.starts_with("ComfyUIFunction")), "{all:?}");
    assert!(plan.service[0].parameters["ModelVersion"].starts_with("v2-"));
    let LocalModel::Tree { .. } = local().model else { unreachable!() };
    let same = update_model(&before, &local().model, &world).expect("a plan");
    assert!(same.service.is_empty(), "{:?}", same.service);
    let error = update_model(&before, &model, &empty()).expect_err("no stack");
    assert_eq!(error.kind(), Kind::Usage);
}

#[test]
fn an_artifact_in_another_bucket_is_readable_after_up_and_after_update_model_alike() {
    let before = settings("");
    let world = deployed(&before, &local());
    for (bucket, key) in [("elsewhere", "art/v2/model.tar.gz"), ("comfy-123456789012-eu-west-1", "own/model.tar.gz")] {
        let model = LocalModel::External { bucket: bucket.into(), key: key.into() };
        let updated = update_model(&before, &model, &world).expect("a plan");
        let upped = up(&before, &Local { model, ..local() }, &world).expect("a plan");
        for name in ["ModelDataBucket", "ModelDataS3Key", "ModelDataPrefix", "ModelPackaging"] {
            assert_eq!(updated.service[0].parameters[name], upped.service[0].parameters[name], "{name} of {key}");
        }
        assert!(actions(&updated).contains(&("ComfyUIModelExecutionRole", Action::Modify)));
    }
    // And back again into the own bucket.
    let back = update_model(&before, &local().model, &world).expect("a plan");
    assert!(back.is_empty());
}

#[test]
fn a_stack_that_is_being_deleted_is_waited_for() {
    let settings = settings("");
    for foundation in [true, false] {
        let mut world = deployed(&settings, &local());
        let stack = if foundation { &mut world.foundation } else { &mut world.service };
        if let Some(s) = stack {
            s.stack.status = "DELETE_IN_PROGRESS".into();
            s.body = String::new();
        }
        assert_eq!(up(&settings, &local(), &world).expect_err("busy").kind(), Kind::Busy);
    }
}

#[test]
fn another_formatting_of_the_deployed_template_is_no_difference() {
    let settings = settings("autoscaling: {enabled: true}");
    let mut world = deployed(&settings, &local());
    if let Some(s) = &mut world.service {
        s.body = stack::parse(&s.body).expect("a template").to_string();
        s.stack.status = "UPDATE_IN_PROGRESS".into();
    }
    let plan = up(&settings, &local(), &world).expect("a plan");
    assert_eq!(plan.service[0].kind, StepKind::Attach);
}

#[test]
fn what_exists_is_adopted_unless_it_is_another_apps() {
    let settings = settings("");
    let existing = |app: Option<&str>| World {
        existing: vec![Existing { what: "bucket", name: "b".into(), app: app.map(str::to_owned) }],
        ..empty()
    };
    let notes = |app| up(&settings, &local(), &existing(app)).expect("a plan").notes;
    assert!(notes(None)[0].contains("adopted"));
    assert!(notes(Some("comfy"))[0].contains("taken back"));
    let refused = up(&settings, &local(), &existing(Some("other"))).expect_err("another app's");
    assert_eq!(refused.kind(), Kind::Refused);
}

#[test]
fn a_prebuilt_image_is_deployed_by_digest_and_a_forced_build_says_what_it_replaces() {
    let prebuilt = Local { image: LocalImage::Prebuilt { uri: "comfy:v1".into() }, ..local() };
    let world = World { image: Some(DIGEST.into()), ..empty() };
    let plan = up(&settings(""), &prebuilt, &world).expect("a plan");
    assert_eq!(plan.service[0].parameters["ModelEcrImage"], format!("comfy@{DIGEST}"));
    // A registry that cannot be asked.
    let foreign = Local { image: LocalImage::Prebuilt { uri: "ghcr.io/x/comfy:v1".into() }, ..local() };
    let plan = up(&settings(""), &foreign, &empty()).expect("a plan");
    assert_eq!(plan.service[0].parameters["ModelEcrImage"], "x/comfy:v1");
    assert_eq!(plan.service[0].parameters["ModelEcrRegistry"], "ghcr.io");

    let forced = Settings { force_build: true, ..settings("") };
    let plan = up(&forced, &local(), &world).expect("a plan");
    assert_eq!(plan.image, ImagePlan::Build { tag: "c-1".into(), instead_of: Some(DIGEST.into()) });
}

#[test]
fn the_download_timeout_grows_with_the_models_and_comes_with_them() {
    let timeout = |plan: &Plan| plan.service.last().map(|s| s.parameters["ModelDataDownloadTimeout"].clone());
    let large = |bytes| Local { model: another_model(bytes, 3), ..local() };
    let before = settings("endpoint: {instance_type: ml.g5.48xlarge}");
    for (bytes, seconds) in [(7_000_000_000, "1200"), (60_000_000_000, "1800"), (400_000_000_000, "3600")] {
        assert_eq!(timeout(&up(&before, &large(bytes), &empty()).expect("a plan")).as_deref(), Some(seconds));
        let world = deployed(&before, &large(bytes));
        assert!(up(&before, &large(bytes), &world).expect("a plan").is_empty(), "the same again is no change");
        // And what `up` would make of it, `update-model` does.
        let world = World { model_present: false, ..deployed(&before, &local()) };
        let updated = update_model(&before, &large(bytes).model, &world).expect("a plan");
        assert_eq!(timeout(&updated).as_deref(), Some(seconds));
        assert_eq!(updated.growth.and_then(|g| g.download_timeout).map(|s| s.to_string()).as_deref(), Some(seconds));
    }
    // What the config says wins, with `update-model` as soon as another artifact comes.
    let said = settings("endpoint: {instance_type: ml.g5.48xlarge, download_timeout: 900}");
    assert_eq!(timeout(&up(&said, &large(60_000_000_000), &empty()).expect("a plan")).as_deref(), Some("900"));
    let world = deployed(&before, &local());
    assert!(update_model(&said, &local().model, &world).expect("a plan").is_empty());
    let moved = update_model(&said, &another_model(2000, 1), &world).expect("a plan");
    assert_eq!(timeout(&moved).as_deref(), Some("900"));
}

#[test]
fn an_artifact_made_elsewhere_is_measured_if_that_can_be() {
    let settings = settings("");
    let model = LocalModel::External { bucket: "elsewhere".into(), key: "art/model.tar.gz".into() };
    let local = Local { model: model.clone(), ..local() };
    for (model_bytes, seconds) in [(Some(50_000_000_000), "1500"), (None, "1200")] {
        let plan = up(&settings, &local, &World { model_bytes, ..empty() }).expect("a plan");
        assert_eq!(plan.service[0].parameters["ModelDataDownloadTimeout"], seconds);
        let world = World { model_bytes, ..deployed(&settings, &self::local()) };
        let plan = update_model(&settings, &model, &world).expect("a plan");
        assert_eq!(plan.service[0].parameters["ModelDataDownloadTimeout"], seconds);
    }
}

#[test]
fn an_older_template_without_a_download_timeout_gets_none() {
    let settings = settings("");
    let mut world = deployed(&settings, &local());
    if let Some(s) = &mut world.service {
        let mut template = stack::parse(&s.body).expect("a template");
        template["Parameters"].as_object_mut().expect("parameters").remove("ModelDataDownloadTimeout");
        let variant = &mut template["Resources"]["ComfyUIEndpointConfig"]["Properties"]["ProductionVariants"][0];
        variant.as_object_mut().expect("a variant").remove("ModelDataDownloadTimeoutInSeconds");
        s.body = template.to_string();
        s.stack.parameters.remove("ModelDataDownloadTimeout");
    }
    let plan = update_model(&settings, &another_model(60_000_000_000, 1), &world).expect("a plan");
    assert!(!plan.service[0].parameters.contains_key("ModelDataDownloadTimeout"));
}
