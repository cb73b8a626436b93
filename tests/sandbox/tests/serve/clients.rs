//! The same through boto3, which reads answers strictly and signs by itself.

use std::path::Path;

use serde_json::json;
use tokio::process::Command;

use crate::endpoints::{archived, create, settled};
use crate::support::{REGION, Sandbox, package};

#[tokio::test(flavor = "multi_thread")]
async fn boto3_invokes_functions_urls_and_endpoints() {
    let venv = std::env::var_os("COMFY_DEPLOY_TEST_VENV")
        .expect("run the tests by tests/run, which makes the Python environment");
    let bin = Path::new(&venv).join("bin");
    let sandbox = Sandbox::serving(|_| {}).await;
    create(&sandbox, "c1", "ok", archived());
    settled(&sandbox).await;
    sandbox.role("f", "lambda.amazonaws.com", json!([{"Effect": "Allow", "Action": "logs:*", "Resource": "*"}]));
    let zip = sandbox.dir.path().join("f.zip");
    std::fs::write(&zip, package()).unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients");
    let ran = Command::new(bin.join("python"))
        .env_clear()
        .env("PATH", &bin)
        // Nobody's configuration: there is none beside the scripts.
        .env("HOME", &scripts)
        .env("PYTHONPATH", &scripts)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("AWS_ENDPOINT_URL", sandbox.running.url())
        .env("AWS_ACCESS_KEY_ID", "sandbox")
        .env("AWS_SECRET_ACCESS_KEY", "sandbox")
        .env("AWS_REGION", REGION)
        .env("AWS_DEFAULT_REGION", REGION)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .arg(scripts.join("serve.py"))
        .args([zip.as_os_str(), "e".as_ref()])
        .output()
        .await
        .unwrap();
    let (out, errors) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && out.starts_with("looked through "), "{out}{errors}");
}
