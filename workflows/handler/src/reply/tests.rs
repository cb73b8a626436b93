use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use serde_json::Value;

const SOURCES: [Source; 6] = [
    Source::FunctionUrl,
    Source::HttpApi,
    Source::RestApi,
    Source::LoadBalancer { multi_value: false },
    Source::LoadBalancer { multi_value: true },
    Source::Direct,
];

fn picture(bytes: Vec<u8>) -> Answer {
    let headers = BTreeMap::from([("Content-Type", "image/png".to_owned())]);
    Answer { status: 200, headers, content: Content::Picture(bytes.into()) }
}

fn png(length: usize) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    bytes.resize(length, 0);
    bytes
}

fn wire(reply: &Reply) -> Value {
    match reply {
        Reply::Buffered(reply) => serde_json::from_slice(&reply.to_json()).expect("JSON"),
        Reply::Streamed(_) => panic!("streamed"),
    }
}

#[test]
fn only_a_streaming_url_gets_a_stream() {
    for source in SOURCES {
        for mode in [UrlMode::Buffered, UrlMode::Stream] {
            let reply = form(picture(png(20)), source, mode);
            let streamed = matches!(reply, Reply::Streamed(_));
            assert_eq!(streamed, source == Source::FunctionUrl && mode == UrlMode::Stream, "{source:?} {mode:?}");
        }
    }
    let Reply::Streamed(reply) = form(picture(png(20)), Source::FunctionUrl, UrlMode::Stream) else { panic!() };
    assert_eq!(
        (reply.status, &reply.body[..], reply.headers["Content-Type"].as_str()),
        (200, &png(20)[..], "image/png")
    );
    let text = Answer { status: 404, headers: BTreeMap::new(), content: Content::Text("x".into()) };
    let Reply::Streamed(reply) = form(text, Source::FunctionUrl, UrlMode::Stream) else { panic!() };
    assert_eq!((reply.status, &reply.body[..]), (404, &b"x"[..]));
}

#[test]
fn each_source_gets_its_form() {
    let plain = wire(&form(picture(vec![1, 2]), Source::HttpApi, UrlMode::Stream));
    let expected =
        json!({"statusCode": 200, "headers": {"Content-Type": "image/png"}, "body": "AQI=", "isBase64Encoded": true});
    assert_eq!(plain, expected);
    let balancer = wire(&form(picture(vec![1]), Source::LoadBalancer { multi_value: false }, UrlMode::Buffered));
    assert_eq!(
        (&balancer["statusDescription"], &balancer["headers"]["Content-Type"]),
        (&json!("200 OK"), &json!("image/png"))
    );
    let multi = wire(&form(picture(vec![1]), Source::LoadBalancer { multi_value: true }, UrlMode::Buffered));
    assert_eq!((&multi["multiValueHeaders"], multi.get("headers")), (&json!({"Content-Type": ["image/png"]}), None));
    let problem = wire(&form(Answer::problem(&Problem::invalid("no")), Source::RestApi, UrlMode::Buffered));
    assert_eq!((&problem["statusCode"], &problem["isBase64Encoded"]), (&json!(400), &json!(false)));
    assert_eq!(problem["headers"]["Content-Type"], "application/json");
}

/// The largest picture that passes makes a reply of just the limit or a few bytes less.
#[test]
fn the_limits_are_exact() {
    for source in SOURCES {
        let passes = |length: usize| deliver(picture(png(length)), source, UrlMode::Buffered).is_ok();
        let (mut low, mut high) = (100, 8_000_000);
        assert!(passes(low) && !passes(high));
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            if passes(middle) { low = middle } else { high = middle }
        }
        let length = match form(picture(png(low)), source, UrlMode::Buffered) {
            Reply::Buffered(reply) => reply.to_json().len(),
            Reply::Streamed(_) => panic!("streamed"),
        };
        let limit = limit(source);
        assert!(length <= limit && limit - length < 4, "{source:?}: {length} of {limit}");
    }
    assert_eq!(limit(Source::LoadBalancer { multi_value: true }), 1_048_576);
    assert_eq!(limit(Source::RestApi), 6_291_556);
}

#[test]
fn a_stream_takes_what_a_buffer_does_not() {
    let answer = picture(png(25_000_000));
    assert!(deliver(answer.clone(), Source::FunctionUrl, UrlMode::Stream).is_ok());
    assert!(deliver(answer, Source::Direct, UrlMode::Stream).is_err());
}

#[test]
fn too_large_says_what_would_fit() {
    let problem = |length, source| deliver(picture(png(length)), source, UrlMode::Buffered).expect_err("too large");
    let large = problem(5_000_000, Source::FunctionUrl);
    assert_eq!((large.status, large.code.as_str()), (413, "picture_too_large"));
    assert!(
        large.message.contains(r#""format": "jpeg""#) && large.message.contains("url_mode: stream"),
        "{}",
        large.message
    );
    assert_eq!(
        (&large.details["formats_that_fit"], &large.details["format"]),
        (&json!(["jpeg", "webp"]), &json!("png"))
    );
    let larger = problem(8_000_000, Source::Direct);
    assert_eq!(larger.details["formats_that_fit"], json!(["jpeg", "webp"]));
    assert!(!larger.message.contains("url_mode"), "{}", larger.message);
    let huge = problem(20_000_000, Source::LoadBalancer { multi_value: false });
    assert_eq!((&huge.details["formats_that_fit"], &huge.details["limit_bytes"]), (&json!([]), &json!(1_048_576)));
    assert!(huge.message.contains("at most 18 % as wide"), "{}", huge.message);
    let mut jpeg = png(5_000_000);
    jpeg[..3].copy_from_slice(&[0xff, 0xd8, 0xff]);
    let jpeg = deliver(picture(jpeg), Source::FunctionUrl, UrlMode::Buffered).expect_err("too large");
    assert_eq!((&jpeg.details["format"], &jpeg.details["formats_that_fit"]), (&json!("jpeg"), &json!(["webp"])));
}

#[test]
fn texts_are_escaped_and_lengths_are_known_before() {
    for content in
        [Content::Text("\"a\\\n\u{1}é".into()), Content::Picture(png(1).into()), Content::Picture(png(100).into())]
    {
        let answer =
            Answer { status: 200, headers: BTreeMap::from([("A", "\"b\"".to_owned())]), content: content.clone() };
        let Reply::Buffered(reply) = form(answer, Source::RestApi, UrlMode::Buffered) else { panic!("streamed") };
        assert_eq!(reply.to_json().len(), reply.length());
        let document: Value = serde_json::from_slice(&reply.to_json()).expect("JSON");
        assert_eq!(document["headers"]["A"], "\"b\"");
        match content {
            Content::Text(text) => assert_eq!(document["body"], text),
            Content::Picture(bytes) => assert_eq!(document["body"], STANDARD.encode(bytes)),
        }
    }
}

#[test]
fn modes() {
    assert_eq!(UrlMode::parse(None), Ok(UrlMode::Buffered));
    assert_eq!(UrlMode::parse(Some("")), Ok(UrlMode::Buffered));
    assert_eq!(UrlMode::parse(Some("buffered")), Ok(UrlMode::Buffered));
    assert_eq!(UrlMode::parse(Some("stream")), Ok(UrlMode::Stream));
    assert!(UrlMode::parse(Some("STREAM ")).is_err_and(|why| why.contains("COMFY_URL_MODE")));
}
