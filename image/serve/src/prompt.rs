//! A workflow as it is sent to ComfyUI: written once, and kept as text, which is a tenth of what it takes as values.

use bytes::Bytes;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::aside;
use crate::job::Submission;
use crate::kept::Fingerprint;
use crate::problem::Problem;
use crate::request;

/// The class whose pictures come on the socket and nowhere else.
const SOCKET_SAVER: &str = "SaveImageWebsocket";

/// What a job sends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prompt {
    /// The workflow.
    text: Bytes,
    /// What goes along, as members of the body: `,"extra_data":{...}`.
    extra: Bytes,
    /// Of the workflow as the caller sent it.
    pub(crate) fingerprint: Fingerprint,
    /// The ids of its nodes, in their order.
    pub(crate) nodes: Vec<String>,
    /// Those whose pictures come on the socket alone.
    pub(crate) socket_savers: Vec<String>,
    /// The first seed, as it is written there.
    pub(crate) seed: Option<String>,
}

impl Prompt {
    /// Writes a submission, which came in so many bytes.
    pub(crate) async fn new(submission: Submission, bytes: usize) -> Result<Self, Problem> {
        aside::by_size(bytes, move || Self::of(submission)).await.ok_or_else(crashed)
    }

    fn of(submission: Submission) -> Self {
        let Submission { workflow, extra } = submission;
        let nodes = workflow.nodes().map(|(id, _)| id.to_owned()).collect();
        let socket_savers = workflow.nodes().filter_map(|(id, node)| {
            let class = node.get("class_type")?.as_str()?;
            (class == SOCKET_SAVER).then(|| id.to_owned())
        });
        let socket_savers = socket_savers.collect();
        let seed = request::seed(&workflow);
        let text = Bytes::from(workflow.into_value().to_string());
        let fingerprint = Sha256::digest(&text).into();
        let extra: String = extra.into_iter().map(|(key, value)| format!(",{}:{value}", Value::String(key))).collect();
        Prompt { text, extra: extra.into(), fingerprint, nodes, socket_savers, seed }
    }

    /// The body of POST /prompt.
    pub(crate) fn body(&self, prompt_id: &str, client_id: &str) -> Bytes {
        let ids = format!(",\"prompt_id\":\"{prompt_id}\",\"client_id\":\"{client_id}\"}}");
        [&b"{\"prompt\":"[..], &self.text, &self.extra, ids.as_bytes()].concat().into()
    }

    /// The same with an input for some nodes that no node knows. It changes what ComfyUI's cache goes by, so that these
    /// nodes, and no others, run again.
    pub(crate) async fn again(&self, nodes: Vec<String>, nonce: String) -> Result<Self, Problem> {
        let text = self.text.clone();
        let insert = move || {
            let mut workflow: Map<String, Value> = serde_json::from_slice(&text).ok()?;
            for node in &nodes {
                if let Some(inputs) = workflow.get_mut(node).and_then(|node| node.get_mut("inputs")?.as_object_mut()) {
                    inputs.insert("_nonce".to_owned(), nonce.clone().into());
                }
            }
            Some(Bytes::from(Value::Object(workflow).to_string()))
        };
        let text = aside::by_size(self.text.len(), insert).await.flatten();
        Ok(Prompt { text: text.ok_or_else(crashed)?, ..self.clone() })
    }
}

fn crashed() -> Problem {
    Problem::internal("crashed", "writing the workflow crashed; this is a defect of comfy-serve")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn submission(extra: Value) -> Submission {
        let workflow = json!({
            "3": {"class_type": "KSampler", "inputs": {"seed": u64::MAX, "cfg": 7.1}},
            "10": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["3", 0]}},
            "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "ü\"x"}},
        });
        let workflow = comfy_workflow::Workflow::from_value(workflow).expect("a workflow");
        Submission { workflow, extra: extra.as_object().expect("an object").clone() }
    }

    #[tokio::test]
    async fn written_once_and_the_same_off_the_way() {
        let extra = json!({"extra_data": {"extra_pnginfo": {"a": 1}}, "partial_execution_targets": ["9"]});
        let submission = submission(extra.clone());
        let prompt = Prompt::new(submission.clone(), 0).await.expect("written");
        assert_eq!(prompt.nodes, ["3", "10", "9"]);
        assert_eq!(
            (&prompt.socket_savers[..], prompt.seed.as_deref()),
            (&["10".to_owned()][..], Some("18446744073709551615"))
        );
        let body: Value = serde_json::from_slice(&prompt.body("p", "c")).expect("JSON");
        let mut expected = extra;
        expected["prompt"] = submission.workflow.clone().into_value();
        expected["prompt_id"] = "p".into();
        expected["client_id"] = "c".into();
        assert_eq!(body, expected);
        assert_eq!(Prompt::new(submission, usize::MAX).await, Ok(prompt));
    }

    #[tokio::test]
    async fn only_the_nodes_that_shall_run_again_change() {
        let prompt = Prompt::new(submission(json!({})), 0).await.expect("written");
        let again = prompt.again(vec!["9".into(), "77".into()], "n".into()).await.expect("written");
        assert_eq!((again.fingerprint, &again.nodes), (prompt.fingerprint, &prompt.nodes));
        let workflow =
            |prompt: &Prompt| serde_json::from_slice::<Value>(&prompt.body("p", "c")).expect("JSON")["prompt"].take();
        let mut expected = workflow(&prompt);
        expected["9"]["inputs"]["_nonce"] = "n".into();
        assert_eq!(workflow(&again), expected);
    }
}
