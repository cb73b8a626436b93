use super::*;
use crate::error::{Kind, Look};

/// What stderr would show for a file's text, warnings included.
fn shown(text: &str, environment: Option<&str>, overrides: Vec<Override>) -> String {
    let source = Arc::new(Source { name: FILE_NAME.into(), text: text.into() });
    match load(source, environment, overrides) {
        Ok(loaded) => match loaded.warnings.list.is_empty() {
            true => "fine".into(),
            false => crate::error::Drawing::draw(&loaded.warnings, Look::PLAIN),
        },
        Err(error) => {
            assert_eq!(error.kind(), Kind::Usage);
            crate::ui::error_text(&error, Look::PLAIN)
        }
    }
}

fn good(text: &str) -> Config {
    let source = Arc::new(Source { name: FILE_NAME.into(), text: text.into() });
    load(source, None, Vec::new()).unwrap_or_else(|e| panic!("{}", crate::ui::error_text(&e, Look::PLAIN))).config
}

/// Each case with what it shows, to be read as a user would.
fn gallery(cases: &[(&str, &str)]) -> String {
    let mut page = String::new();
    for (title, text) in cases {
        page.push_str(&format!("##### {title}\n{}\n\n", shown(text, None, Vec::new())));
    }
    page
}

const HEAD: &str = "version: 1\napp: comfy\nregion: eu-central-1\n";

fn with(body: &str) -> String {
    format!("{HEAD}{body}")
}

#[test]
fn the_smallest_file_has_the_defaults() {
    let config = good("version: 1\napp: comfy\n");
    assert_eq!(config.endpoint, crate::config::Endpoint::default());
    assert_eq!(config.autoscaling, crate::config::Autoscaling::default());
    assert_eq!(config.lambda, crate::config::Lambda::default());
    assert_eq!(config.comfyui.git_ref.len(), 40);
    assert_eq!(config.region, None);
}

#[test]
fn everything_that_can_be_written_is_read() {
    let config = good(include_str!("full.yaml"));
    assert_eq!(config.expected_account.as_deref(), Some("012345678901"));
    assert_eq!(config.models.version, "1.10".replace('.', "-"));
    assert_eq!(config.lambda.url, crate::config::UrlAuth::Off);
    assert_eq!(config.autoscaling.schedule.len(), 2);
    assert_eq!(config.endpoint.environment["LEVEL"], "3");
    assert_eq!(config.autoscaling.target, crate::config::ScalingGoal::Off(crate::config::NoneWord::None));
    let again: Config = serde_json::from_value(serde_json::to_value(&config).expect("json")).expect("config");
    assert_eq!(again, config);
    let errors: Vec<_> = rules::validate(&config, None).into_iter().filter(Problem::is_error).collect();
    assert_eq!(errors, []);
}

#[test]
fn keys_and_types() {
    let cases = [
        ("a mistyped key", with("endpoint:\n  instnce_type: ml.g5.xlarge\n")),
        ("a key of another section", with("lambda:\n  instance_type: ml.g5.xlarge\n")),
        ("a key of the top level, indented by mistake", with("endpoint:\n  volume_gb:\n  workflows: flows\n")),
        ("a key nobody knows", with("nonsense: 1\n")),
        ("a key twice", with("region: eu-west-1\n")),
        ("a missing key", "version: 1\n# nothing else\n".into()),
        ("a list for a mapping", with("endpoint:\n  - ml.g5.xlarge\n")),
        ("a mapping for text", with("models:\n  dir:\n    path: models\n")),
        ("a word outside its list", with("lambda:\n  url: iam\n")),
        ("text for a number", with("endpoint:\n  instances: two\n")),
        ("a number in quotes", with("endpoint:\n  instances: \"2\"\n")),
        ("out of range", with("lambda:\n  memory: 64\n  timeout: 901\n")),
        ("a fraction", with("endpoint:\n  instances: 1.5\n")),
        ("no value", with("endpoint:\n  instance_type:\n")),
        ("another version", "version: 2\napp: comfy\n".into()),
        ("the wrong case and letters", "version: 1\napp: My_App\n".into()),
        ("not even a mapping", "comfy\n".into()),
        ("merge keys", with("endpoint:\n  <<: {}\n")),
    ];
    let cases: Vec<(&str, &str)> = cases.iter().map(|(a, b)| (*a, b.as_str())).collect();
    insta::assert_snapshot!(gallery(&cases));
}

#[test]
fn yaml_traps_say_quote_it() {
    let cases = [
        ("version 1.10", "version: 1.10\napp: comfy\n".to_owned()),
        ("an account with a leading zero", with("expected_account: 012345678901\n")),
        ("an account without quotes", with("expected_account: 123456789012\n")),
        ("no as a region", "version: 1\napp: comfy\nregion: no\n".to_owned()),
        ("a model version that is a number", with("models:\n  version: 1.10\n")),
        ("a commit that is a number", with("comfyui:\n  ref: 1234567890123456789012345678901234567890\n")),
        ("a tag that is a date or a boolean", with("tags:\n  on: yes\n")),
        ("a variable that is a number", with("endpoint:\n  environment:\n    LEVEL: 3\n")),
        ("yes for true", with("protect: yes\n")),
        ("true in quotes", with("protect: \"true\"\n")),
        ("an octal number", with("endpoint:\n  instances: 010\n")),
        ("1_000", with("lambda:\n  memory: 1_000\n")),
    ];
    for (title, text) in &cases {
        let text = shown(text, None, Vec::new());
        let says = ["Quote it", "Write ", "Remove the quotes", "Allowed: "];
        assert!(says.iter().any(|s| text.contains(s)), "{title}: {text}");
    }
    let cases: Vec<(&str, &str)> = cases.iter().map(|(a, b)| (*a, b.as_str())).collect();
    insta::assert_snapshot!(gallery(&cases));
}

#[test]
fn off_is_a_word_where_a_word_is_meant() {
    assert_eq!(good(&with("lambda:\n  url: off\n")).lambda.url, crate::config::UrlAuth::Off);
    assert_eq!(good(&with("lambda:\n  url: none\n")).lambda.url, crate::config::UrlAuth::None);
}

#[test]
fn broken_files() {
    let cases = [
        ("empty", ""),
        ("only comments", "# nothing\n\n"),
        ("a tab", "version: 1\nendpoint:\n\tinstances: 1\n"),
        ("an open quote", "version: 1\napp: \"comfy\nregion: x\n"),
        ("a colon in a value", "version: 1\napp: a: b\n"),
        ("an open bracket", "version: 1\napp: comfy\ntags: {a: b\n"),
        ("wrong indentation", "version: 1\n  app: comfy\n"),
        ("two documents", "version: 1\napp: comfy\n---\nversion: 1\n"),
        ("a tag", "version: 1\napp: !name comfy\n"),
        ("a list as a key", "version: 1\n[a, b]: c\n"),
    ];
    insta::assert_snapshot!(gallery(&cases));
}

#[test]
fn rules_across_values() {
    let cases = [
        ("min above max", with("autoscaling:\n  enabled: true\n  min: 5\n  max: 2\n")),
        ("min zero", with("autoscaling:\n  enabled: true\n  min: 0\n")),
        (
            "a schedule with autoscaling off",
            with("autoscaling:\n  schedule:\n    - name: night\n      when: cron(0 20 * * ? *)\n      max: 1\n"),
        ),
        (
            "bad schedules",
            with(
                "autoscaling:\n  enabled: true\n  target: none\n  schedule:\n    - name: a\n      when: 0 20 * * 1\n      min: 1\n    \
                 - name: a\n      when: at(2027-01-01T00:00:00)\n    - name: c\n      when: cron(0 20 * * MON *)\n      \
                 timezone: Europe/Berln\n      min: 3\n      max: 2\n    - name: d\n      when: cron(0 20 ? * MON *)\n      \
                 min: 9\n",
            ),
        ),
        ("a volume beside local NVMe", with("endpoint:\n  instance_type: ml.g5.xlarge\n  volume_gb: 100\n")),
        ("a type without ml.", with("endpoint:\n  instance_type: g5.xlarge\n")),
        ("an unknown type", with("endpoint:\n  instance_type: ml.g5.xlage\n")),
        ("a zone for a region", "version: 1\napp: comfy\nregion: eu-west-1a\n".to_owned()),
        ("an account with hyphens", with("expected_account: 1234-5678-9012\n")),
        ("one subnet", with("endpoint:\n  vpc:\n    subnets: [subnet-0123456789abcdef0]\n    security_groups: []\n")),
        ("a long label", with(&format!("models:\n  version: {}\n", "x".repeat(50)))),
        (
            "a tag for a commit",
            with("comfyui:\n  ref: v0.3.64\n  custom_nodes:\n    - url: git@github.com:a/b.git\n      ref: main\n"),
        ),
        ("images", with("image:\n  uri: comfy:latest\n  target: gui\n  platform: linux/arm64\n")),
        ("an image without a tag", with("image:\n  uri: 123456789012.dkr.ecr.eu-west-1.amazonaws.com/comfy\n")),
        ("two sources of models", with("models:\n  dir: models\n  uri: s3://my-bucket/model.tar.gz\n")),
        ("nothing to stream", with("models:\n  stream: true\n  uri: s3://my-bucket/model.tar.gz\n")),
        ("compression where nothing is compressed", with("models:\n  packaging: uncompressed\n  compression: fast\n")),
        ("compression of what is streamed", with("models:\n  stream: true\n  compression: best\n")),
        (
            "compression of what is made elsewhere",
            with("models:\n  uri: s3://my-bucket/m.tar.gz\n  compression: adaptive\n"),
        ),
        (
            "a file and a directory of one name",
            with(
                "models:\n  files:\n    - {source: \"https://a.example/x\", to: loras/x}\n    - {source: \"https://a.example/y\", to: loras/x/y}\n",
            ),
        ),
        ("an artifact of another kind", with("models:\n  uri: s3://my-bucket/model.zip\n")),
        ("tags", with(&format!("tags:\n  aws:x: a\n  long: {}\n  \"a,b\": c\n", "y".repeat(257)))),
        ("variables", with(&format!("endpoint:\n  environment:\n    1A: x\n    BIG: {}\n", "z".repeat(1025)))),
        ("a bucket", with("storage:\n  bucket: 192.168.0.1\n")),
        (
            "arns",
            with(
                "endpoint:\n  execution_role_arn: comfy-role\nstorage:\n  kms_key_arn: alias/x\niam:\n  role_path: apps\n",
            ),
        ),
    ];
    let cases: Vec<(&str, &str)> = cases.iter().map(|(a, b)| (*a, b.as_str())).collect();
    insta::assert_snapshot!(gallery(&cases));
}

const OVERLAYS: &str = "\
version: 1
app: comfy
region: eu-central-1
endpoint:
  instance_type: ml.g5.xlarge
  environment: {A: a, B: b}
models:
  uri: s3://my-bucket/base.tar.gz
autoscaling:
  enabled: true
  schedule:
    - {name: night, when: cron(0 20 * * ? *), max: 1}
environments:
  prod:
    region: us-east-1
    endpoint:
      instance_type: ml.g6.xlarge
      environment: {B: bb}
    models:
      dir: prod-models
    autoscaling:
      schedule: []
  test:
";

#[test]
fn an_overlay_merges_mappings_and_replaces_lists() {
    let source = Arc::new(Source { name: FILE_NAME.into(), text: OVERLAYS.into() });
    let config = load(source.clone(), Some("prod"), Vec::new()).expect("prod").config;
    assert_eq!(config.region.as_deref(), Some("us-east-1"));
    assert_eq!(config.endpoint.instance_type, "ml.g6.xlarge");
    assert_eq!(config.endpoint.environment["A"], "a");
    assert_eq!(config.endpoint.environment["B"], "bb");
    assert!(config.autoscaling.enabled);
    assert!(config.autoscaling.schedule.is_empty());
    assert_eq!((config.models.dir.as_str(), config.models.uri), ("prod-models", None));
    let test = load(source, Some("test"), Vec::new()).expect("test").config;
    assert_eq!(test.endpoint.instance_type, "ml.g5.xlarge");
}

#[test]
fn overlays_are_checked_on_their_own_lines() {
    let broken = "environments:\n  prod:\n    app: other\n    endpoint:\n      instanses: 2\n      instances: none\n  Bad_Name: {}\n";
    let mut page = format!("##### unknown environment\n{}\n\n", shown(OVERLAYS, Some("prd"), Vec::new()));
    page.push_str(&format!("##### no environments\n{}\n\n", shown(HEAD, Some("prod"), Vec::new())));
    page.push_str(&format!("##### broken overlays, none chosen\n{}\n\n", shown(&with(broken), None, Vec::new())));
    insta::assert_snapshot!(page);
    // Chosen or not, the mistakes are the same.
    assert_eq!(shown(&with(broken), Some("prod"), Vec::new()), shown(&with(broken), None, Vec::new()));
}

#[test]
fn flags_and_variables_are_checked_and_named() {
    let page = shown(
        HEAD,
        None,
        vec![
            (&["endpoint", "instance_type"], Node::text("g5.xlarge", Origin::Flag("--instance-type"))),
            (&["endpoint", "instances"], Node::plain("many", Origin::Variable("COMFY_DEPLOY_INSTANCES"))),
        ],
    );
    insta::assert_snapshot!(page);
}

#[test]
fn bytes_of_all_kinds_become_text_or_a_sentence() {
    assert_eq!(parse::decode(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n"), Ok("a: 1\nb: 2\n".into()));
    assert_eq!(parse::decode(b"a: 1\nb: \xe9\n"), Err("line 2 has the byte 0xe9, which is not UTF-8".into()));
    assert_eq!(parse::decode(b"\xff\xfea\0"), Err("it is UTF-16, not UTF-8".into()));
}

#[test]
fn carets_stand_right_behind_wide_characters_and_line_ends() {
    let text = "version: 1\napp: comfy # größer\ntags:\n  grüße: no\n";
    let drawn = shown(text, None, Vec::new());
    assert!(drawn.contains("4 |   grüße: no\n  :          ^|"), "{drawn}");
}

#[test]
fn aliases_are_followed_but_not_forever() {
    let config = good("version: 1\napp: comfy\ntags: &t {a: b}\nendpoint:\n  environment: *t\n");
    assert_eq!(config.endpoint.environment["a"], "b");
    let mut bomb = String::from("version: 1\napp: comfy\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..9 {
        let prior = n - 1;
        bomb.push_str(&format!("a{n}: &a{n} [{}]\n", vec![format!("*a{prior}"); 10].join(", ")));
    }
    assert!(shown(&bomb, None, Vec::new()).contains("more than 100000 values"));
}

#[test]
fn the_nearest_file_upwards_is_found() {
    let dir = tempfile::tempdir().expect("dir");
    let deep = dir.path().join("a/b");
    std::fs::create_dir_all(&deep).expect("mkdir");
    let missing = find(&deep).expect_err("none");
    assert_eq!(missing.kind(), Kind::Usage);
    assert!(missing.hint().is_some_and(|hint| hint.contains("--config")));
    std::fs::write(dir.path().join(FILE_NAME), HEAD).expect("write");
    assert_eq!(find(&deep).expect("found"), dir.path().join(FILE_NAME));
    std::fs::write(deep.join(FILE_NAME), HEAD).expect("write");
    assert_eq!(find(&deep).expect("found"), deep.join(FILE_NAME));
}

#[test]
fn what_is_not_a_readable_file_is_said() {
    let dir = tempfile::tempdir().expect("dir");
    let says = |file: &FilePath| read(file, "given.yaml").expect_err("unreadable").to_string();
    assert!(says(dir.path()).contains("it is a directory"));
    assert!(says(&dir.path().join("none.yaml")).contains("No such file"));
    let huge = dir.path().join("huge");
    std::fs::File::create(&huge).and_then(|f| f.set_len(MAX_BYTES + 1)).expect("sparse");
    assert!(says(&huge).contains("a config has at most"));
}

proptest::proptest! {
    /// Whatever is in the file, there is an answer and not a panic, and it can be drawn.
    #[test]
    fn any_text_gets_an_answer(text in "(version: 1\napp: comfy\n)?([a-zé_]{0,8}: ?[-\\[\\]{}\"'&*!|>%@`#,:0-9a-zü\t ]{0,12}\n){0,6}") {
        let source = Arc::new(Source { name: FILE_NAME.into(), text });
        if let Err(error) = load(source, Some("prod"), Vec::new()) {
            proptest::prop_assert!(!crate::ui::error_text(&error, Look::PLAIN).is_empty());
        }
    }

    /// A correct config written as JSON, which is YAML, is read back as it was.
    #[test]
    fn what_is_valid_is_read_back(instances in 1u32..100, app in "[a-z][a-z0-9]{0,10}(-[a-z0-9]{1,5}){0,2}", label in "[a-zA-Z0-9]{1,10}") {
        let mut config = good(HEAD);
        config.app = app;
        config.endpoint.instances = instances;
        config.models.version = label;
        let text = serde_json::to_string_pretty(&config).expect("json");
        proptest::prop_assert_eq!(good(&text), config);
    }
}
