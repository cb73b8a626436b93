//! Figures for Prometheus, on a port of their own: SageMaker publishes 8080 to nobody, but shows no figures either.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::health::Health;

/// Upper bounds of the durations, in seconds: from a cached picture to the deadline.
const BOUNDS: [f64; 12] = [0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: &'static str,
    status: u16,
}

/// What is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    durations: Histogram,
    queued: Histogram,
    sent: Counter,
}

impl Metrics {
    pub(crate) fn new(health: Arc<Health>) -> Self {
        let mut registry = Registry::with_prefix("comfy_serve");
        let requests = Family::<Labels, Counter>::default();
        let (durations, queued) = (Histogram::new(BOUNDS), Histogram::new(BOUNDS));
        let sent = Counter::default();
        registry.register("requests", "Requests to /invocations, by outcome", requests.clone());
        registry.register("duration_seconds", "From a request's arrival to its answer", durations.clone());
        registry.register("queued_seconds", "From a job's submission until it ran", queued.clone());
        registry.register("response_bytes", "Bytes of answers", sent.clone());
        registry.register_collector(Box::new(Now(health)));
        Metrics { registry, requests, durations, queued, sent }
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, outcome: &'static str, status: u16, seconds: f64, queued: Option<f64>, bytes: u64) {
        self.requests.get_or_create(&Labels { outcome, status }).inc();
        self.durations.observe(seconds);
        if let Some(queued) = queued {
            self.queued.observe(queued);
        }
        self.sent.inc_by(bytes);
    }

    fn render(&self) -> Response {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => {
                let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                ([(header::CONTENT_TYPE, content_type)], text).into_response()
            }
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

/// What is true at the moment of asking.
#[derive(Debug)]
struct Now(Arc<Health>);

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let starts = self.0.starts();
        for (name, help, value) in [
            ("ready", "Whether /ping says 200", i64::from(self.0.ready())),
            ("jobs", "Jobs under way", i64::try_from(self.0.jobs()).unwrap_or(i64::MAX)),
            ("comfyui_starts", "How often ComfyUI was started", i64::try_from(starts).unwrap_or(i64::MAX)),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

/// GET /metrics.
pub(crate) fn router(metrics: Arc<Metrics>) -> Router {
    Router::new().route("/metrics", get(async move || metrics.render()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn rendered() {
        let metrics = Metrics::new(Arc::default());
        metrics.answered("ok", 200, 0.3, Some(0.01), 1000);
        metrics.answered("ok", 200, 3.0, None, 24);
        metrics.answered("timeout", 504, 58.0, None, 100);
        let body = metrics.render().into_body().collect().await.expect("a body").to_bytes();
        let text = String::from_utf8(body.to_vec()).expect("UTF-8");
        for line in [
            "comfy_serve_requests_total{outcome=\"ok\",status=\"200\"} 2",
            "comfy_serve_requests_total{outcome=\"timeout\",status=\"504\"} 1",
            "comfy_serve_duration_seconds_bucket{le=\"0.5\"} 1",
            "comfy_serve_queued_seconds_count 1",
            "comfy_serve_response_bytes_total 1124",
            "comfy_serve_ready 0",
            "comfy_serve_comfyui_starts 0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
    }
}
