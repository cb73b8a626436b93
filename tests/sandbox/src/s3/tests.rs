//! One test or more for each rule, named after it, and the round trips.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::world::{Answer, Ctx, Shared, World};

mod http;
mod rules;
mod uploads;

/// A sandbox without a server.
pub struct Sandbox {
    pub shared: Arc<Shared>,
    _dir: tempfile::TempDir,
}

pub fn ctx(region: &str) -> Ctx {
    Ctx { region: region.into(), request_id: "R".into(), now: crate::world::now_ms() }
}

impl Sandbox {
    pub fn new() -> std::io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let world = World { dir: dir.path().to_owned(), url: "http://127.0.0.1:4599".into(), ..Default::default() };
        Ok(Sandbox { shared: Arc::new(Shared::new(world, dir.path().to_owned())), _dir: dir })
    }

    /// With the bucket `bucket` in us-east-1.
    pub fn with_bucket() -> std::io::Result<Self> {
        let sandbox = Self::new()?;
        sandbox.call("CreateBucket", json!({"Bucket": "bucket"})).map_err(|e| std::io::Error::other(e.message))?;
        Ok(sandbox)
    }

    pub fn call(&self, operation: &str, input: Value) -> Answer {
        call(&mut self.shared.world.lock(), &ctx("us-east-1"), operation, &input)
    }

    /// The error code of an operation.
    pub fn fails(&self, operation: &str, input: Value) -> Option<String> {
        self.call(operation, input).err().map(|e| e.code)
    }
}

#[test]
fn every_rule_has_a_test() {
    let tests = [include_str!("tests/rules.rs"), include_str!("tests/uploads.rs"), include_str!("tests/http.rs")];
    for rule in RULES {
        let name = rule.id.trim_start_matches("s3.").replace('-', "_");
        let found = tests.iter().any(|text| text.contains(&format!("fn {name}()")));
        assert!(found, "{} has no test called {name}", rule.id);
        assert!(!rule.source.is_empty() && rule.text.ends_with('.'));
    }
}

#[tokio::test]
async fn the_state_survives_a_restart_and_orphans_do_not() -> std::io::Result<()> {
    let sandbox = Sandbox::with_bucket()?;
    let answer = http::send(&sandbox, "PUT", "/bucket/key", &[], b"kept").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let dir = directory(&sandbox.shared.dir);
    std::fs::write(dir.join("orphan"), "half a part")?;
    let saved = serde_json::to_string(&*sandbox.shared.world.lock())?;
    let mut world: World = serde_json::from_str(&saved)?;
    world.dir.clone_from(&sandbox.shared.dir);
    sweep(&world);
    assert!(!dir.join("orphan").exists());
    assert_eq!(read(&world, "bucket", "key").as_deref(), Some(&b"kept"[..]));
    assert_eq!(exists(&world, "bucket", "key"), Some(4));
    assert_eq!((read(&world, "bucket", "no"), exists(&world, "no", "key")), (None, None));
    Ok(())
}

#[tokio::test]
async fn files_go_only_when_unused_for_a_while() -> std::io::Result<()> {
    let sandbox = Sandbox::with_bucket()?;
    http::send(&sandbox, "PUT", "/bucket/key", &[], b"old").await;
    http::send(&sandbox, "PUT", "/bucket/copy", &[("x-amz-copy-source", "/bucket/key")], b"").await;
    http::send(&sandbox, "PUT", "/bucket/key", &[], b"new").await;
    http::send(&sandbox, "DELETE", "/bucket/key", &[], b"").await;
    let mut world = sandbox.shared.world.lock();
    let now = crate::world::now_ms();
    assert!(world.s3.collect(now).is_empty(), "a file may be in use by a download");
    // The copy still uses the old file.
    assert_eq!(world.s3.collect(now + 600_000).len(), 1);
    assert_eq!(read(&world, "bucket", "copy").as_deref(), Some(&b"old"[..]));
    Ok(())
}
