//! The shortest way to a picture in ComfyUI itself: a WebSocket that stays, connections that stay, no look into the
//! history. What a server needs beyond this is what it adds.

use std::error::Error;

use futures::StreamExt;
use hyper::Method;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use crate::http::{Http, Tally};

/// Runs a workflow so often, one at a time.
///
/// # Errors
/// No WebSocket, or one that breaks; no workflow; a job without a file.
pub(crate) async fn run(url: &str, workflow: &[u8], count: usize) -> Result<Tally, Box<dyn Error>> {
    let workflow: Value = serde_json::from_slice(workflow)?;
    let client_id = uuid::Uuid::new_v4().to_string();
    let authority = url.trim_start_matches("http://").trim_end_matches('/');
    let socket_url = format!("ws://{authority}/ws?clientId={client_id}");
    let (mut socket, _) = tokio_tungstenite::connect_async_with_config(socket_url, None, true).await?;
    let http = Http::new();
    let mut tally = Tally::default();
    for _ in 0..count {
        let begun = Instant::now();
        let prompt_id = uuid::Uuid::new_v4().to_string();
        let body = json!({"prompt": workflow, "client_id": client_id, "prompt_id": prompt_id}).to_string();
        let (status, answer) = http.call(Method::POST, &format!("http://{authority}/prompt"), &[], body.into()).await?;
        if status != 200 {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&answer)).into());
        }
        let mut file = Value::Null;
        loop {
            let Some(message) = socket.next().await else { return Err("the WebSocket was closed".into()) };
            let Message::Text(text) = message? else { continue };
            let message: Value = serde_json::from_str(&text)?;
            if message.pointer("/data/prompt_id").and_then(Value::as_str) != Some(&prompt_id) {
                continue;
            }
            match message["type"].as_str() {
                Some("executed") => file = message["data"]["output"]["images"][0].clone(),
                Some("executing") if message["data"]["node"].is_null() => break,
                _ => {}
            }
        }
        let text = |key: &str| file[key].as_str().map(str::to_owned).ok_or("the job has no picture");
        let (name, folder, kind) = (text("filename")?, text("subfolder")?, text("type")?);
        let view = format!("http://{authority}/view?filename={name}&subfolder={folder}&type={kind}");
        tally.note(begun, http.call(Method::GET, &view, &[], Vec::new().into()).await);
    }
    Ok(tally)
}
