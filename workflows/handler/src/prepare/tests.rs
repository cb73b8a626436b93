use super::*;
use comfy_workflow::Workflow;

use crate::testing::TWO_IMAGES;

fn request(images: Vec<Image>) -> Request {
    Request {
        positive_prompt: "a cat".into(),
        negative_prompt: "a dog".into(),
        prompt_file: "x".into(),
        seed: Some(7),
        params: serde_json::Map::new(),
        format: None,
        images,
    }
}

fn image(name: &str, node: Option<&str>) -> Image {
    Image { name: name.into(), data: format!("data of {name}"), node: node.map(str::to_owned) }
}

fn prepared(images: Vec<Image>) -> Result<Value, Problem> {
    let workflow = Workflow::parse(TWO_IMAGES.as_bytes()).expect("a workflow");
    prepare(&workflow, &request(images)).map(|prepared| serde_json::from_slice(&prepared.body).expect("JSON"))
}

#[test]
fn without_images_the_workflow_alone_is_sent() {
    let body = prepared(Vec::new()).expect("prepared");
    assert_eq!((&body["2"]["inputs"]["text"], &body["4"]["inputs"]["image"]), (&json!("a cat"), &json!("a.png")));
}

#[test]
fn images_go_to_the_loaders_in_order_or_by_name() {
    for (images, start, mask) in [
        (vec![image("1", None)], "1", "b.png"),
        (vec![image("1", None), image("2", None)], "1", "2"),
        (vec![image("1", None), image("2", Some("Start"))], "2", "1"),
        (vec![image("1", Some("10"))], "a.png", "1"),
    ] {
        let sent = images.len();
        let body = prepared(images).expect("prepared");
        let prompt = &body["prompt"];
        assert_eq!((&prompt["4"]["inputs"]["image"], &prompt["10"]["inputs"]["image"]), (&json!(start), &json!(mask)));
        assert_eq!(prompt["11"]["inputs"]["image"], json!(["4", 0]), "a link was replaced");
        assert_eq!(body["images"].as_array().map(Vec::len), Some(sent));
        assert_eq!(body["images"][0], json!({"name": "1", "data": "data of 1"}));
    }
}

#[test]
fn the_same_picture_travels_once() {
    let body = prepared(vec![image("1", None), image("1", None)]).expect("prepared");
    assert_eq!(body["images"].as_array().map(Vec::len), Some(1));
    assert_eq!(body["prompt"]["10"]["inputs"]["image"], "1");
}

#[test]
fn images_without_a_place() {
    let three = || ["1", "2", "3"].map(|name| image(name, None)).to_vec();
    for (images, why) in [
        (three(), "3 images were sent, and the workflow loads 2"),
        (vec![image("1", Some("start"))], "did you mean \"Start\"?"),
        (vec![image("1", Some("2"))], "no node \"2\" that loads"),
        (vec![image("1", Some("4")), image("2", Some("Start"))], "gets two pictures"),
    ] {
        let problem = prepared(images).expect_err(why);
        assert_eq!((problem.status, problem.code.as_str()), (400, "invalid_images"));
        assert!(problem.message.contains(why), "{}", problem.message);
        assert_eq!(*problem.details, json!({"load_image_nodes": ["4", "10"]}));
    }
}

#[test]
fn params_are_set_and_mistakes_in_them_are_all_told() {
    let workflow = Workflow::parse(TWO_IMAGES.as_bytes()).expect("a workflow");
    let with = |params: Value, images: Vec<Image>| {
        let params = params.as_object().expect("an object").clone();
        prepare(&workflow, &Request { params, ..request(images) })
    };
    let filled = with(json!({"9.filename_prefix": "y", "10.channel": "red"}), Vec::new()).expect("prepared");
    let filled: Value = serde_json::from_slice(&filled.body).expect("JSON");
    assert_eq!(
        (&filled["9"]["inputs"]["filename_prefix"], &filled["10"]["inputs"]["channel"]),
        (&json!("y"), &json!("red"))
    );

    let problem = with(json!({"9.filename_prefx": "y", "77.width": 1, "9.filename_prefix": 5}), Vec::new());
    let problem = problem.expect_err("mistakes");
    assert_eq!((problem.status, problem.code.as_str()), (400, "invalid_params"));
    let problems = problem.details["problems"].as_array().expect("a list");
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert_eq!(problems[0]["nearest"], "9.filename_prefix");

    for key in ["4.image", "Start.image"] {
        let problem = with(json!({key: "other.png"}), vec![image("1", None)]).expect_err("set twice");
        assert_eq!(problem.status, 400, "{}", problem.message);
    }
}

#[test]
fn what_sagemaker_would_not_take_is_not_sent() {
    let images = vec![Image { data: "x".repeat(LARGEST_PAYLOAD), ..image("1", None) }];
    let problem = prepared(images).expect_err("too large");
    assert_eq!((problem.status, problem.code.as_str()), (413, "request_too_large"));
}
