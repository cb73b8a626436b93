//! The adapters against canned answers on loopback: real SDK clients, real wire formats, no AWS.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::{Connection, connect};
use crate::cloud::{
    BucketState, ChangeRequest, ChangeSetState, Cloud, CopySource, Listed, Map, PartDone, PutOptions, Written,
};
use crate::error::Kind;

/// One canned answer.
struct Answer {
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
}

fn answer(status: u16, body: &'static str) -> Answer {
    Answer { status, headers: &[("x-amzn-requestid", "req-1"), ("x-amz-request-id", "req-1")], body }
}

/// Headers of an answer whose body breaks off.
const CUT: &[(&str, &str)] = &[("x-cut", "10")];

/// A request as the stand-in saw it: head and body.
#[derive(Debug, Clone)]
struct Seen {
    head: String,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

type Log = Arc<Mutex<Vec<Seen>>>;

/// Serves the answers in turn, one connection after the other, and hands back what was asked. More requests than
/// answers get 418, which no client repeats.
async fn stand_in(answers: Vec<Answer>) -> (Cloud, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
    let log = Log::default();
    let seen = log.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answers.clone(), seen.clone()));
        }
    });
    let connection = Connection { region: "eu-west-1".into(), profile: None, sandbox: Some(url), verbose: false };
    (connect(&connection).await.unwrap(), log)
}

async fn serve(stream: TcpStream, answers: Arc<Mutex<VecDeque<Answer>>>, log: Log) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while stream.read_line(&mut head).await? > 2 {}
    let mut seen = Seen { head, body: String::new() };
    let length = seen.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    seen.body = String::from_utf8_lossy(&body).into_owned();
    let is_head = seen.head.starts_with("HEAD");
    log.lock().unwrap().push(seen);
    let next = answers.lock().unwrap().pop_front().unwrap_or(answer(418, ""));
    let headers: String = next.headers.iter().map(|(k, v)| format!("{k}: {v}\r\n")).collect();
    let body = if is_head { "" } else { next.body };
    let text = format!(
        "HTTP/1.1 {} X\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
        next.status,
        next.body.len() + if next.headers == CUT { 10 } else { 0 }
    );
    stream.get_mut().write_all(text.as_bytes()).await?;
    stream.get_mut().shutdown().await
}

const CALLER: &str = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
    <Arn>arn:aws:iam::123456789012:user/u</Arn><UserId>x</UserId><Account>123456789012</Account>\
    </GetCallerIdentityResult></GetCallerIdentityResponse>";

fn s3_error(code: &'static str) -> &'static str {
    match code {
        "NotImplemented" => "<Error><Code>NotImplemented</Code><Message>no such header</Message></Error>",
        "PreconditionFailed" => "<Error><Code>PreconditionFailed</Code><Message>there</Message></Error>",
        "SlowDown" => "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
        "ExpiredToken" => "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>",
        "NoSuchUpload" => "<Error><Code>NoSuchUpload</Code><Message>gone</Message></Error>",
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn the_account_of_the_caller_becomes_the_expected_owner() {
    let (cloud, log) = stand_in(vec![answer(200, CALLER), answer(404, "")]).await;
    assert_eq!(cloud.identity.caller().await.unwrap().account, "123456789012");
    assert_eq!(cloud.objects.head("b", "k").await.unwrap(), None);
    let log = log.lock().unwrap();
    assert_eq!(log[1].header("x-amz-expected-bucket-owner"), Some("123456789012"));
    assert!(log[1].head.starts_with("HEAD /b/k "), "path style: {}", log[1].head);
    assert!(log[1].head.contains("app/comfy-deploy-"), "{}", log[1].head);
    assert_eq!(cloud.calls.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn buckets_are_told_apart_by_status_alone() {
    for (status, state) in [
        (200, BucketState::Owned),
        (404, BucketState::Absent),
        (403, BucketState::Forbidden),
        (301, BucketState::Elsewhere),
    ] {
        let (cloud, _) = stand_in(vec![answer(status, "")]).await;
        assert_eq!(cloud.objects.bucket("b").await.unwrap(), state, "{status}");
    }
}

#[tokio::test]
async fn a_head_without_permission_is_an_access_error_with_the_request_id() {
    let (cloud, _) = stand_in(vec![answer(403, "")]).await;
    let error = cloud.objects.head("b", "k").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Access);
    let aws = error.aws().unwrap();
    assert_eq!((aws.code.as_str(), aws.status), ("Forbidden", Some(403)));
    assert_eq!(aws.request_id.as_deref(), Some("req-1"));
}

#[tokio::test]
async fn an_upload_goes_on_without_crc64nvme_where_it_is_refused() {
    const BEGUN: &str = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>";
    const DONE: &str = "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>";
    let part = Answer { status: 200, headers: &[("etag", "\"e1\"")], body: "" };
    let (cloud, log) =
        stand_in(vec![answer(501, s3_error("NotImplemented")), answer(200, BEGUN), part, answer(200, DONE)]).await;
    let id = cloud.objects.begin_upload("b", "k", &PutOptions::default()).await.unwrap();
    let part = cloud.objects.upload_part("b", "k", &id, 1, Bytes::from_static(b"abc"), "AAAAAAAAAAA=").await.unwrap();
    assert_eq!(part, PartDone { number: 1, etag: "\"e1\"".into(), size: 3, crc64nvme: "AAAAAAAAAAA=".into() });
    let written = cloud.objects.complete_upload("b", "k", &id, &[part], "AAAAAAAAAAA=", 3, true).await.unwrap();
    assert_eq!(written, Written::Created);
    let log = log.lock().unwrap();
    assert_eq!(log[0].header("x-amz-checksum-algorithm"), Some("CRC64NVME"));
    assert_eq!(log[0].header("x-amz-checksum-type"), Some("FULL_OBJECT"));
    for later in &log[1..] {
        assert_eq!(later.header("x-amz-checksum-crc64nvme"), None, "{}", later.head);
    }
    assert_eq!(log[3].header("if-none-match"), Some("*"));
    assert_eq!(log[3].header("x-amz-mp-object-size"), Some("3"));
}

#[tokio::test]
async fn a_whole_object_carries_the_same_kind_of_checksum_as_one_in_parts() {
    let (cloud, log) =
        stand_in(vec![answer(200, ""), answer(501, s3_error("NotImplemented")), answer(200, ""), answer(200, "")])
            .await;
    for _ in 0..3 {
        let body = Bytes::from_static(b"123456789");
        let written = cloud.objects.put("b", "k", body, &PutOptions::default()).await.unwrap();
        assert_eq!(written, Written::Created);
    }
    let log = log.lock().unwrap();
    // The check value of CRC-64/NVME: ae8b14860a799888.
    let sums: Vec<_> = log.iter().map(|seen| seen.header("x-amz-checksum-crc64nvme")).collect();
    assert_eq!(sums, [Some("rosUhgp5mIg="), Some("rosUhgp5mIg="), None, None]);
    assert_eq!(log[0].header("x-amz-checksum-crc32"), None);
}

#[tokio::test]
async fn parts_and_completion_carry_the_precomputed_checksum() {
    const DONE: &str = "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>";
    let part = Answer { status: 200, headers: &[("etag", "\"e1\"")], body: "" };
    let (cloud, log) = stand_in(vec![part, answer(200, DONE)]).await;
    let part = cloud.objects.upload_part("b", "k", "u", 1, Bytes::from_static(b"abc"), "AAAAAAAAAAA=").await.unwrap();
    cloud.objects.complete_upload("b", "k", "u", &[part], "BBBBBBBBBBA=", 3, false).await.unwrap();
    let log = log.lock().unwrap();
    assert_eq!(log[0].header("x-amz-checksum-crc64nvme"), Some("AAAAAAAAAAA="));
    assert_eq!(log[0].header("x-amz-checksum-crc32"), None);
    assert_eq!(log[1].header("x-amz-checksum-crc64nvme"), Some("BBBBBBBBBBA="));
    assert_eq!(log[1].header("if-none-match"), None);
    assert!(log[1].body.contains("<ChecksumCRC64NVME>AAAAAAAAAAA=</ChecksumCRC64NVME>"), "{}", log[1].body);
}

#[tokio::test]
async fn who_sends_parts_hears_at_once_that_they_are_too_many() {
    let (cloud, log) = stand_in(vec![answer(503, s3_error("SlowDown"))]).await;
    let error = cloud.objects.upload_part("b", "k", "u", 1, Bytes::from("x"), "crc").await.unwrap_err();
    assert!(error.is_aws("SlowDown"), "{error}");
    let log = log.lock().unwrap();
    assert_eq!(log.len(), 1, "the SDK must not repeat it");
    // Loopback: nothing on the way could change it, and the checksum is compared anyway.
    assert_eq!(log[0].header("x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"));
}

#[tokio::test]
async fn a_small_object_whose_bytes_break_off_is_asked_for_again() {
    let cut = || Answer { status: 200, headers: CUT, body: "the be" };
    let (cloud, log) = stand_in(vec![cut(), cut(), answer(200, "the whole")]).await;
    assert_eq!(cloud.objects.get("b", "k").await.unwrap().unwrap(), "the whole");
    assert_eq!(log.lock().unwrap().len(), 3);
    let (cloud, log) = stand_in(vec![cut(), cut(), cut()]).await;
    let error = cloud.objects.get("b", "k").await.unwrap_err();
    assert!(error.to_string().contains("cannot read s3://b/k") && error.kind() == Kind::Failed, "{error}");
    assert_eq!(log.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_head_tells_what_encrypts() {
    const KMS: &[(&str, &str)] =
        &[("x-amz-server-side-encryption", "aws:kms"), ("x-amz-server-side-encryption-aws-kms-key-id", "arn:key")];
    for (headers, with) in
        [(KMS, Some("arn:key")), (&[("x-amz-server-side-encryption", "AES256")], Some("AES256")), (&[], None)]
    {
        let (cloud, _) = stand_in(vec![Answer { status: 200, headers, body: "" }]).await;
        let head = cloud.objects.head("b", "k").await.unwrap().unwrap();
        assert_eq!(head.encrypted_with.as_deref(), with);
    }
}

#[tokio::test]
async fn expired_credentials_are_tried_once_more_and_then_told() {
    let expired = || answer(400, s3_error("ExpiredToken"));
    let (cloud, log) = stand_in(vec![expired(), expired(), expired()]).await;
    let error = cloud.objects.get("b", "k").await.unwrap_err();
    assert!(error.is_aws("ExpiredToken") && error.kind() == Kind::Access, "{error}");
    assert_eq!(log.lock().unwrap().len(), 2, "the same credentials came again");
    // Where no answer can say more than 400.
    let (cloud, _) = stand_in(vec![answer(400, ""), answer(400, "")]).await;
    let error = cloud.objects.head("b", "k").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Access);
    assert!(error.hint().is_some_and(|hint| hint.contains("probably expired")), "{error}");
}

#[tokio::test]
async fn a_completed_object_of_somebody_else_wins_and_the_parts_are_dropped() {
    let (cloud, log) = stand_in(vec![answer(412, s3_error("PreconditionFailed")), answer(204, "")]).await;
    let written = cloud.objects.complete_upload("b", "k", "u", &[], "x", 0, true).await.unwrap();
    assert_eq!(written, Written::AlreadyThere);
    assert!(log.lock().unwrap()[1].head.starts_with("DELETE /b/k?"));
}

#[tokio::test]
async fn a_completion_whose_answer_was_lost_is_recognised() {
    let object = Answer {
        status: 200,
        headers: &[("x-amz-checksum-crc64nvme", "BBBBBBBBBBA="), ("etag", "\"e\"")],
        body: "abc",
    };
    let (cloud, _) = stand_in(vec![answer(404, s3_error("NoSuchUpload")), object]).await;
    let written = cloud.objects.complete_upload("b", "k", "u", &[], "BBBBBBBBBBA=", 3, true).await.unwrap();
    assert_eq!(written, Written::Created);

    let (cloud, _) = stand_in(vec![answer(404, s3_error("NoSuchUpload")), answer(404, "")]).await;
    let error = cloud.objects.complete_upload("b", "k", "u", &[], "BBBBBBBBBBA=", 3, true).await.unwrap_err();
    assert!(error.is_aws("NoSuchUpload"));
}

#[tokio::test]
async fn objects_are_listed_to_the_last_page() {
    let pages = vec![
        answer(
            200,
            "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>\
             <Contents><Key>a</Key><Size>1</Size><LastModified>2026-11-29T00:00:01.000Z</LastModified></Contents></ListBucketResult>",
        ),
        answer(200, "<ListBucketResult><Contents><Key>b</Key><Size>2</Size></Contents></ListBucketResult>"),
    ];
    let (cloud, log) = stand_in(pages).await;
    let listed = |key: &str, size, modified| Listed { key: key.into(), size, modified };
    assert_eq!(cloud.objects.list("b", "").await.unwrap(), [listed("a", 1, 1_795_910_401), listed("b", 2, 0)]);
    assert!(log.lock().unwrap()[1].head.contains("continuation-token=t"));
}

const NO_STACK: &str = "<ErrorResponse><Error><Type>Sender</Type><Code>ValidationError</Code>\
    <Message>Stack with id demo does not exist</Message></Error><RequestId>req-1</RequestId></ErrorResponse>";

#[tokio::test]
async fn an_unknown_stack_is_nothing() {
    let (cloud, _) = stand_in(vec![answer(400, NO_STACK), answer(400, NO_STACK), answer(400, NO_STACK)]).await;
    assert_eq!(cloud.stacks.stack("demo").await.unwrap(), None);
    assert_eq!(cloud.stacks.events("demo", None).await.unwrap(), []);
    cloud.stacks.discard("demo", "c").await.unwrap();
}

#[tokio::test]
async fn events_stop_at_the_last_known_one_and_come_oldest_first() {
    const FIRST: &str = "<DescribeStackEventsResponse><DescribeStackEventsResult><StackEvents>\
        <member><EventId>4</EventId></member><member><EventId>3</EventId></member></StackEvents>\
        <NextToken>n</NextToken></DescribeStackEventsResult></DescribeStackEventsResponse>";
    const SECOND: &str = "<DescribeStackEventsResponse><DescribeStackEventsResult><StackEvents>\
        <member><EventId>2</EventId></member><member><EventId>1</EventId></member></StackEvents>\
        <NextToken>more</NextToken></DescribeStackEventsResult></DescribeStackEventsResponse>";
    let (cloud, log) = stand_in(vec![answer(200, FIRST), answer(200, SECOND)]).await;
    let events = cloud.stacks.events("demo", Some("1")).await.unwrap();
    assert_eq!(events.iter().map(|e| e.id.as_str()).collect::<Vec<_>>(), ["2", "3", "4"]);
    assert_eq!(log.lock().unwrap().len(), 2, "no page is asked for beyond the known event");
}

#[tokio::test]
async fn a_change_set_is_read_to_the_last_page() {
    const FIRST: &str = "<DescribeChangeSetResponse><DescribeChangeSetResult><Status>CREATE_COMPLETE</Status>\
        <ExecutionStatus>AVAILABLE</ExecutionStatus><Changes><member><ResourceChange><Action>Modify</Action>\
        <LogicalResourceId>A</LogicalResourceId><Replacement>True</Replacement></ResourceChange></member></Changes>\
        <NextToken>n</NextToken></DescribeChangeSetResult></DescribeChangeSetResponse>";
    const SECOND: &str = "<DescribeChangeSetResponse><DescribeChangeSetResult><Status>CREATE_COMPLETE</Status>\
        <ExecutionStatus>AVAILABLE</ExecutionStatus><Changes><member><ResourceChange><Action>Add</Action>\
        <LogicalResourceId>B</LogicalResourceId></ResourceChange></member></Changes>\
        </DescribeChangeSetResult></DescribeChangeSetResponse>";
    let (cloud, _) = stand_in(vec![answer(200, FIRST), answer(200, SECOND)]).await;
    let ChangeSetState::Ready(changes) = cloud.stacks.changes("demo", "c").await.unwrap() else { panic!("not ready") };
    let short: Vec<_> =
        changes.iter().map(|c| (c.logical_id.as_str(), c.action.as_str(), c.replacement.as_str())).collect();
    assert_eq!(short, [("A", "Modify", "True"), ("B", "Add", "")]);
}

fn request(template: String) -> ChangeRequest {
    ChangeRequest {
        stack: "demo".into(),
        name: "c".into(),
        create: true,
        template,
        template_url: None,
        parameters: Map::from([("P".to_owned(), "1".to_owned())]),
        tags: Map::new(),
        role_arn: None,
        import_existing: false,
    }
}

#[tokio::test]
async fn a_template_over_the_limit_never_leaves() {
    let (cloud, log) = stand_in(vec![]).await;
    let error = cloud.stacks.request_changes(&request("x".repeat(51_201)), "t").await.unwrap_err();
    assert!(error.to_string().contains("51201 bytes"), "{error}");
    assert!(log.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_change_set_asks_for_both_capabilities_with_its_token() {
    const MADE: &str = "<CreateChangeSetResponse><CreateChangeSetResult><Id>arn:c</Id></CreateChangeSetResult></CreateChangeSetResponse>";
    let (cloud, log) = stand_in(vec![answer(200, MADE)]).await;
    assert_eq!(cloud.stacks.request_changes(&request("{}".into()), "tok").await.unwrap(), "arn:c");
    let body = &log.lock().unwrap()[0].body;
    for wanted in
        ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "ClientToken=tok", "ChangeSetType=CREATE", "ParameterKey=P"]
    {
        assert!(body.contains(wanted), "{wanted} in {body}");
    }
}

#[tokio::test]
async fn the_rollback_setting_is_always_sent() {
    const DONE: &str = "<ExecuteChangeSetResponse><ExecuteChangeSetResult/></ExecuteChangeSetResponse>";
    let (cloud, log) = stand_in(vec![answer(200, DONE)]).await;
    cloud.stacks.execute("demo", "c", "tok", false).await.unwrap();
    let body = &log.lock().unwrap()[0].body;
    assert!(body.contains("DisableRollback=false") && body.contains("ClientRequestToken=tok"), "{body}");
}

#[tokio::test]
async fn throttled_calls_are_repeated_and_counted() {
    const SLOW: &str =
        "<ErrorResponse><Error><Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>";
    let (cloud, _) = stand_in(vec![answer(400, SLOW), answer(400, SLOW), answer(400, NO_STACK)]).await;
    assert_eq!(cloud.stacks.stack("demo").await.unwrap(), None);
    assert_eq!(cloud.calls.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn sagemaker_absence_is_a_validation_text() {
    const ABSENT: &str = r#"{"__type":"ValidationException","message":"Could not find endpoint \"demo\"."}"#;
    const LIMIT: &str =
        r#"{"__type":"ResourceLimitExceeded","Message":"'ml.g5.xlarge for endpoint usage' is 0 Instances"}"#;
    let (cloud, _) = stand_in(vec![answer(400, ABSENT), answer(400, LIMIT)]).await;
    assert_eq!(cloud.endpoints.endpoint("demo").await.unwrap(), None);
    assert_eq!(cloud.endpoints.delete_model("m").await.unwrap_err().kind(), Kind::Quota);
}

#[tokio::test]
async fn an_endpoint_shows_its_images_and_its_stage() {
    const BODY: &str = r#"{"EndpointName":"demo","EndpointArn":"arn:e","EndpointConfigName":"c1","EndpointStatus":"Updating",
        "CreationTime":1,"LastModifiedTime":1,
        "ProductionVariants":[{"VariantName":"AllTraffic","CurrentInstanceCount":2,"DesiredInstanceCount":3,
          "DeployedImages":[{"SpecifiedImage":"r:t","ResolvedImage":"r@sha256:1"}]}],
        "PendingDeploymentSummary":{"EndpointConfigName":"c2","ProductionVariants":[{"VariantName":"AllTraffic",
          "VariantStatus":[{"Status":"Creating"}]}]}}"#;
    let (cloud, _) = stand_in(vec![answer(200, BODY)]).await;
    let endpoint = cloud.endpoints.endpoint("demo").await.unwrap().unwrap();
    assert_eq!(endpoint.stage.as_deref(), Some("AllTraffic: Creating"));
    assert_eq!(endpoint.variants[0].images, [("r:t".to_owned(), "r@sha256:1".to_owned())]);
    assert_eq!((endpoint.variants[0].current, endpoint.variants[0].desired), (Some(2), Some(3)));
}

#[tokio::test]
async fn an_immutable_tag_gives_the_digest_that_is_there() {
    const TAKEN: &str = r#"{"__type":"ImageTagAlreadyExistsException","message":"tag is immutable"}"#;
    const THERE: &str = r#"{"images":[{"imageId":{"imageDigest":"sha256:old","imageTag":"c-1"},"imageManifest":"{}",
        "imageManifestMediaType":"m"}],"failures":[]}"#;
    let (cloud, _) = stand_in(vec![answer(400, TAKEN), answer(200, THERE)]).await;
    let manifest = crate::cloud::Manifest { digest: "sha256:new".into(), media_type: "m".into(), body: "{}".into() };
    let put = cloud.images.put_manifest("r", "c-1", &manifest).await.unwrap();
    assert_eq!(put, (Written::AlreadyThere, "sha256:old".to_owned()));
}

#[tokio::test]
async fn an_ecr_that_hands_out_no_layers_is_told_from_one_that_refuses() {
    const REFUSED: &str = r#"{"__type":"LayersNotFoundException","message":"no such layer"}"#;
    const FAILED: &str = r#"{"__type":"ServerException","message":"try again"}"#;
    for missing in
        [answer(501, ""), answer(404, "<html>not found</html>"), answer(400, r#"{"__type":"InvalidAction"}"#)]
    {
        let (cloud, _) = stand_in(vec![missing]).await;
        assert_eq!(cloud.images.blob("r", "sha256:1").await.unwrap(), None);
    }
    for failed in [(400, REFUSED), (500, FAILED)] {
        let (cloud, _) = stand_in((0..3).map(|_| answer(failed.0, failed.1)).collect()).await;
        assert!(cloud.images.blob("r", "sha256:1").await.is_err());
    }
}

#[tokio::test]
async fn a_quota_under_another_name_is_not_believed() {
    const OTHER: &str = r#"{"Quota":{"QuotaName":"something else","Value":7}}"#;
    const FIRST: &str = r#"{"Quotas":[{"QuotaName":"x","Value":1}],"NextToken":"n"}"#;
    const SECOND: &str = r#"{"Quotas":[{"QuotaName":"ml.g5.xlarge for endpoint usage","Value":4}]}"#;
    let (cloud, _) = stand_in(vec![answer(200, OTHER), answer(200, FIRST), answer(200, SECOND)]).await;
    assert_eq!(cloud.quotas.endpoint_usage("ml.g5.xlarge").await.unwrap(), Some(4.0));
}

#[tokio::test]
async fn nobody_listening_names_the_host_and_the_sandbox() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let connection =
        Connection { region: "eu-west-1".into(), profile: None, sandbox: Some(url.clone()), verbose: false };
    let error = connect(&connection).await.unwrap().stacks.stack("demo").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Failed);
    assert!(error.reasons()[0].contains("127.0.0.1"), "{error}");
    assert!(error.hint().is_some_and(|h| h.contains(&url)), "{:?}", error.hint());
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_not_taken_for_silence() {
    let (cloud, _) = stand_in(vec![answer(200, "<Surprise/>")]).await;
    let error = cloud.objects.parts("b", "k", "u").await.unwrap_err();
    assert!(error.reasons()[0].contains("does not make sense"), "{error}");
}

#[tokio::test]
async fn copies_name_the_version_and_the_etag_that_were_looked_at() {
    const PART: &str =
        "<CopyPartResult><ETag>\"p\"</ETag><ChecksumCRC64NVME>AAAAAAAAAAA=</ChecksumCRC64NVME></CopyPartResult>";
    const OBJECT: &str =
        "<CopyObjectResult><ETag>\"o\"</ETag><ChecksumCRC64NVME>BBBBBBBBBBA=</ChecksumCRC64NVME></CopyObjectResult>";
    const GONE: &str = "<Error><Code>PreconditionFailed</Code><Message>no</Message></Error>";
    let (cloud, log) = stand_in(vec![answer(200, PART), answer(200, OBJECT), answer(412, GONE)]).await;
    let versioned =
        CopySource { key: "models/1/a b+\u{fc}".into(), etag: "\"e1\"".into(), version_id: Some("v/1".into()) };
    let part = cloud.objects.copy_part("b", "k", "u", 7, &versioned, 10..30).await.unwrap();
    assert_eq!(part, PartDone { number: 7, etag: "\"p\"".into(), size: 20, crc64nvme: "AAAAAAAAAAA=".into() });
    let plain = CopySource { version_id: Some("null".into()), key: "old".into(), ..versioned };
    let sum = cloud.objects.copy("b", "k", &plain, &PutOptions::default()).await.unwrap();
    assert_eq!(sum.as_deref(), Some("BBBBBBBBBBA="));
    let e = cloud.objects.copy("b", "k", &plain, &PutOptions::default()).await.unwrap_err();
    assert!(e.is_aws("PreconditionFailed"), "{e}");

    let log = log.lock().unwrap();
    assert_eq!(log[0].header("x-amz-copy-source"), Some("b/models/1/a%20b%2B%C3%BC?versionId=v/1"));
    assert_eq!(log[0].header("x-amz-copy-source-range"), Some("bytes=10-29"));
    assert_eq!(log[0].header("x-amz-copy-source-if-match"), Some("\"e1\""));
    assert_eq!(log[1].header("x-amz-copy-source"), Some("b/old"));
    assert_eq!(log[1].header("x-amz-checksum-algorithm"), Some("CRC64NVME"));
}
