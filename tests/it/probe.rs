//! What the tests of failures look at: the bucket by the program's own S3 port, stacks and endpoints by name, and
//! processes that are watched and stopped.

use std::future::Future;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use comfy_deploy::cloud::aws::{Connection, connect};
use comfy_deploy::cloud::{Cloud, OpenUpload, PartDone};
use serde_json::{Value, json};

use crate::support::{App, REGION, Ran, Sandbox};

/// The bucket that the foundation of the app `comfy` makes.
pub const BUCKET: &str = "comfy-123456789012-eu-west-1";

/// How long anything that is waited for may take. Generous: the machine may be busy, and waiting costs nothing when it
/// comes sooner.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The bucket and what is in it.
pub struct Bucket {
    runtime: tokio::runtime::Runtime,
    cloud: Cloud,
}

impl Bucket {
    pub fn of(sandbox: &Sandbox) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connection =
            Connection { region: REGION.into(), profile: None, sandbox: Some(sandbox.url.clone()), verbose: false };
        let cloud = runtime.block_on(connect(&connection)).unwrap();
        Bucket { runtime, cloud }
    }

    fn wait<T>(&self, work: impl Future<Output = comfy_deploy::error::Result<T>>) -> T {
        self.runtime.block_on(work).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Keys below a prefix; none without a bucket.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let listed = self.runtime.block_on(self.cloud.objects.list(BUCKET, prefix)).unwrap_or_default();
        listed.into_iter().map(|object| object.key).collect()
    }

    /// A small object.
    pub fn read(&self, key: &str) -> Value {
        let body = self.wait(self.cloud.objects.get(BUCKET, key)).unwrap_or_else(|| panic!("there is no {key}"));
        serde_json::from_slice(&body).unwrap()
    }

    /// An object's bytes.
    pub fn bytes(&self, key: &str) -> Vec<u8> {
        self.wait(self.cloud.objects.get(BUCKET, key)).unwrap_or_else(|| panic!("there is no {key}")).to_vec()
    }

    /// Uploads that were begun and not ended; none without a bucket.
    pub fn open(&self) -> Vec<OpenUpload> {
        self.runtime.block_on(self.cloud.objects.open_uploads(BUCKET, "")).unwrap_or_default()
    }

    /// Aborts an upload, as a lifecycle rule or another run would.
    pub fn abort(&self, upload: &OpenUpload) {
        self.wait(self.cloud.objects.abort_upload(BUCKET, &upload.key, &upload.upload_id));
    }

    /// The finished parts of an upload.
    pub fn parts(&self, upload: &OpenUpload) -> Vec<PartDone> {
        self.wait(self.cloud.objects.parts(BUCKET, &upload.key, &upload.upload_id))
    }
}

/// A stack, if there is one.
pub fn stack(sandbox: &Sandbox, name: &str) -> Option<Value> {
    let answer = sandbox.call("cloudformation", "DescribeStacks", json!({"StackName": name})).ok()?;
    Some(answer["Stacks"][0].clone())
}

/// A stack's status; empty if there is none.
pub fn status(sandbox: &Sandbox, name: &str) -> String {
    stack(sandbox, name).map(|s| s["StackStatus"].as_str().unwrap().to_owned()).unwrap_or_default()
}

/// The endpoint's status; empty if there is none.
pub fn endpoint_status(sandbox: &Sandbox) -> String {
    let answer = sandbox.call("sagemaker", "DescribeEndpoint", json!({"EndpointName": "comfy"}));
    answer.map(|e| e["EndpointStatus"].as_str().unwrap().to_owned()).unwrap_or_default()
}

/// Names of all models and of all endpoint configs.
pub fn models_and_configs(sandbox: &Sandbox) -> (Vec<String>, Vec<String>) {
    let names = |operation: &str, list: &str, member: &str| {
        let answer = sandbox.call("sagemaker", operation, json!({})).unwrap();
        let names = answer[list].as_array().unwrap().iter().map(|m| m[member].as_str().unwrap().to_owned());
        names.collect()
    };
    (names("ListModels", "Models", "ModelName"), names("ListEndpointConfigs", "EndpointConfigs", "EndpointConfigName"))
}

/// Asserts that the app is deployed, once: one model, one endpoint config, one object of each kind, no upload left
/// open, every deployment with its outcome, no stack that is an empty shell, and nothing left to do.
#[track_caller]
pub fn deployed_once(app: &App<'_>) {
    let sandbox = app.sandbox;
    assert_eq!(endpoint_status(sandbox), "InService");
    let (models, configs) = models_and_configs(sandbox);
    assert_eq!((models.len(), configs.len()), (1, 1), "{models:?} {configs:?}");
    let bucket = Bucket::of(sandbox);
    let artifacts = bucket.keys("models/");
    // One artifact: the archive, and beside it the index by which the next one copies from it.
    let prefix = artifacts.first().and_then(|key| key.rsplit_once('/')).map(|(prefix, _)| prefix).unwrap_or_default();
    assert_eq!(artifacts, ["index.json", "model.tar.gz"].map(|name| format!("{prefix}/{name}")));
    let open = bucket.open();
    assert!(open.is_empty(), "{open:?}");
    let records = bucket.keys("deployments/comfy/");
    let (ended, begun): (Vec<&String>, Vec<&String>) = records.iter().partition(|k| k.ends_with(".outcome.json"));
    assert_eq!(ended.len(), begun.len(), "{records:?}");
    for name in ["comfy", "comfy-foundation"] {
        let status = status(sandbox, name);
        assert!(matches!(status.as_str(), "CREATE_COMPLETE" | "UPDATE_COMPLETE"), "{name} is {status}");
    }
    app.run(&["plan", "--detailed-exitcode"]).exits(0);
}

/// Asserts the exit code, that the error is one, says all these words and what to do, and is no trace of the program's
/// inside.
#[track_caller]
pub fn refused(ran: Ran, code: i32, words: &[&str]) -> Ran {
    let ran = ran.exits(code);
    let text = &ran.stderr;
    for word in words {
        assert!(text.contains(word), "`{word}` is missing in:\n{text}");
    }
    for trace in ["panicked", "RUST_BACKTRACE", "src/", "SdkError", "Error {", "ErrorKind", "Some(", "unwrap"] {
        assert!(!text.contains(trace), "`{trace}` in:\n{text}");
    }
    let errors = text.lines().filter(|l| l.starts_with("error:")).count();
    assert_eq!(errors, 1, "not one error:\n{text}");
    let advice = ["\nnext: ", "help: ", "must be "].iter().any(|word| text.contains(word));
    assert!(advice, "it does not say what to do:\n{text}");
    ran
}

/// Asserts that nothing was made in the account.
#[track_caller]
pub fn nothing_made(sandbox: &Sandbox) {
    assert_eq!((status(sandbox, "comfy"), status(sandbox, "comfy-foundation")), (String::new(), String::new()));
    assert_eq!(
        sandbox.call("s3", "ListBuckets", json!({})).map_or(0, |b| b["Buckets"].as_array().map_or(0, Vec::len)),
        0
    );
}

/// A run that is watched while it goes on.
pub struct Going {
    child: Child,
    said: Arc<Mutex<String>>,
    readers: Vec<std::thread::JoinHandle<()>>,
    begun: Instant,
}

impl Going {
    /// Starts it. What it writes is kept: stdout and stderr in one text.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let out: Box<dyn Read + Send> = Box::new(child.stdout.take().unwrap());
        let err: Box<dyn Read + Send> = Box::new(child.stderr.take().unwrap());
        let follow = |pipe: Box<dyn Read + Send>| {
            let said = said.clone();
            std::thread::spawn(move || {
                let mut pipe = BufReader::new(pipe);
                // By bytes, for a prompt ends without a newline.
                loop {
                    let bytes = pipe.fill_buf().map(<[u8]>::to_vec).unwrap_or_default();
                    if bytes.is_empty() {
                        return;
                    }
                    said.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes));
                    pipe.consume(bytes.len());
                }
            })
        };
        let readers = [out, err].map(follow).into();
        Going { child, said, readers, begun: Instant::now() }
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until something is so, while it runs.
    #[track_caller]
    pub fn until<T>(&mut self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        wait_for(what, || {
            if let Some(found) = look() {
                return Some(found);
            }
            let ended = self.child.try_wait().unwrap()?;
            // What it did last may show a little later.
            std::thread::sleep(Duration::from_millis(300));
            let found = look();
            assert!(found.is_some(), "it ended ({ended:?}) before {what}:\n{}", self.said());
            found
        })
    }

    /// Waits until it said something.
    #[track_caller]
    pub fn until_said(&mut self, text: &str) {
        let said = self.said.clone();
        self.until(&format!("`{text}`"), || said.lock().unwrap().contains(text).then_some(()));
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGKILL as soon as something is so, or when it has ended by itself; returns what it said.
    pub fn killed_when(mut self, mut so: impl FnMut() -> bool) -> String {
        wait_for("the moment to kill", || (so() || self.child.try_wait().unwrap().is_some()).then_some(()));
        let _ = self.child.kill();
        self.end().stderr
    }

    /// Types on its standard input, which must be a pipe.
    pub fn type_in(&mut self, text: &str) {
        use std::io::Write;
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(text.as_bytes()).and_then(|()| input.flush()).unwrap();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ran {
        let status = self.child.wait().unwrap();
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        let said = self.said();
        Ran { code: status.code().unwrap_or(-1), stdout: String::new(), stderr: said, took: self.begun.elapsed() }
    }
}

/// A model of so many bytes, sparse, but with every MiB different.
pub fn large_model(app: &App<'_>, bytes: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(app.path("models/checkpoints/large.safetensors")).unwrap();
    file.set_len(bytes).unwrap();
    for at in (0..bytes).step_by(1 << 20) {
        file.write_all_at(&at.to_be_bytes(), at).unwrap();
    }
}
