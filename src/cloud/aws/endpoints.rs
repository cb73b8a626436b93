//! SageMaker.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_sagemaker::operation::describe_endpoint_config::DescribeEndpointConfigOutput;
use aws_sdk_sagemaker::types::{EndpointStatus, ProductionVariantSummary};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::errors::{Context, code, message};
use crate::cloud::{Endpoint, EndpointConfig, Endpoints, Map, Variant};
use crate::error::Result;

/// How many Describe and ListTags calls run at once; SageMaker throttles at some ten per second.
const AT_ONCE: usize = 4;

/// [`Endpoints`] on SageMaker.
pub(super) struct SageMaker {
    client: aws_sdk_sagemaker::Client,
    context: Arc<Context>,
}

impl SageMaker {
    pub(super) fn new(client: aws_sdk_sagemaker::Client, context: Arc<Context>) -> Self {
        SageMaker { client, context }
    }

    async fn describe_config(&self, name: &str) -> Result<Option<DescribeEndpointConfigOutput>> {
        match self.client.describe_endpoint_config().endpoint_config_name(name).send().await {
            Ok(config) => Ok(Some(config)),
            Err(e) if is_absent(&code(&e), &message(&e)) => Ok(None),
            Err(e) => {
                let what = format!("cannot look at endpoint config {name}");
                Err(self.context.explain("sagemaker:DescribeEndpointConfig", what, &e))
            }
        }
    }

    /// Whether a resource carries all these tags.
    async fn carries(&self, arn: &str, tags: &Map) -> Result<bool> {
        let mut missing: BTreeMap<&str, &str> = tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let mut pages = self.client.list_tags().resource_arn(arn).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = match page {
                Ok(page) => page,
                // Deleted since it was listed.
                Err(e) if is_absent(&code(&e), &message(&e)) => return Ok(false),
                Err(e) => {
                    return Err(self.context.explain(
                        "sagemaker:ListTags",
                        format!("cannot read the tags of {arn}"),
                        &e,
                    ));
                }
            };
            for tag in page.tags.unwrap_or_default() {
                let (Some(key), Some(value)) = (tag.key(), tag.value()) else { continue };
                if missing.get(key) == Some(&value) {
                    missing.remove(key);
                }
            }
        }
        Ok(missing.is_empty())
    }

    /// The names among (name, ARN) that carry all these tags, in order.
    async fn tagged(&self, found: Vec<(String, String)>, tags: &Map) -> Result<Vec<String>> {
        stream::iter(found.into_iter().map(|(name, arn)| async move {
            let ours = self.carries(&arn, tags).await?;
            Ok(ours.then_some(name))
        }))
        .buffered(AT_ONCE)
        .try_filter_map(|name| async move { Ok(name) })
        .try_collect()
        .await
    }

    /// Instances of a type that one endpoint holds.
    async fn held(&self, endpoint: &str, instance_type: &str) -> Result<i64> {
        let answer = match self.client.describe_endpoint().endpoint_name(endpoint).send().await {
            Ok(answer) => answer,
            Err(e) if is_absent(&code(&e), &message(&e)) => return Ok(0),
            Err(e) => {
                let what = format!("cannot look at endpoint {endpoint}");
                return Err(self.context.explain("sagemaker:DescribeEndpoint", what, &e));
            }
        };
        let Some(name) = answer.endpoint_config_name() else { return Ok(0) };
        let Some(config) = self.describe_config(name).await? else { return Ok(0) };
        let live = answer.production_variants().iter().chain(answer.shadow_production_variants());
        let live: BTreeMap<_, _> = live.filter_map(|v| Some((v.variant_name()?, instances(v)))).collect();
        let configured = config.production_variants().iter().chain(config.shadow_production_variants());
        Ok(configured
            .filter(|v| v.instance_type().is_some_and(|t| t.as_str() == instance_type))
            .map(|v| {
                let initial = i64::from(v.initial_instance_count().unwrap_or_default());
                // An endpoint that is still being created shows no variants, or none of their instances, yet.
                v.variant_name().and_then(|name| live.get(name).copied().flatten()).unwrap_or(initial)
            })
            .sum())
    }
}

/// Running or wanted, whichever is more: both count against the quota. `None` when neither is known yet.
fn instances(variant: &ProductionVariantSummary) -> Option<i64> {
    let most =
        variant.current_instance_count().unwrap_or_default().max(variant.desired_instance_count().unwrap_or_default());
    (variant.current_instance_count().is_some() || variant.desired_instance_count().is_some())
        .then_some(i64::from(most))
}

/// SageMaker says "Could not find ..." with a code that means any invalid input.
fn is_absent(code: &str, message: &str) -> bool {
    matches!(code, "ResourceNotFound" | "ResourceNotFoundException")
        || matches!(code, "ValidationException" | "ValidationError")
            && (message.contains("Could not find") || message.contains("does not exist"))
}

/// Whether an endpoint in this state holds instances.
fn holds_instances(status: Option<&EndpointStatus>) -> bool {
    !matches!(status, Some(EndpointStatus::Failed | EndpointStatus::Deleting) | None)
}

#[async_trait]
impl Endpoints for SageMaker {
    async fn endpoint(&self, name: &str) -> Result<Option<Endpoint>> {
        let answer = match self.client.describe_endpoint().endpoint_name(name).send().await {
            Ok(answer) => answer,
            Err(e) if is_absent(&code(&e), &message(&e)) => return Ok(None),
            Err(e) => {
                let what = format!("cannot look at endpoint {name}");
                return Err(self.context.explain("sagemaker:DescribeEndpoint", what, &e));
            }
        };
        let pending = answer.pending_deployment_summary();
        let stages: Vec<String> = pending
            .and_then(|p| p.production_variants.as_deref())
            .unwrap_or_default()
            .iter()
            .flat_map(|variant| {
                let name = variant.variant_name().unwrap_or_default();
                variant.variant_status().iter().filter_map(move |s| Some(format!("{name}: {}", s.status()?.as_str())))
            })
            .collect();
        let variants = answer.production_variants().iter().map(|v| Variant {
            name: v.variant_name().unwrap_or_default().to_owned(),
            current: v.current_instance_count(),
            desired: v.desired_instance_count(),
            images: v
                .deployed_images()
                .iter()
                .map(|i| {
                    let text = |s: Option<&str>| s.unwrap_or_default().to_owned();
                    (text(i.specified_image()), text(i.resolved_image()))
                })
                .collect(),
        });
        Ok(Some(Endpoint {
            name: answer.endpoint_name().unwrap_or(name).to_owned(),
            arn: answer.endpoint_arn().unwrap_or_default().to_owned(),
            status: answer.endpoint_status().map(|s| s.as_str().to_owned()).unwrap_or_default(),
            config: answer.endpoint_config_name().unwrap_or_default().to_owned(),
            failure: answer.failure_reason().filter(|f| !f.is_empty()).map(str::to_owned),
            stage: (!stages.is_empty()).then(|| stages.join(", ")),
            variants: variants.collect(),
        }))
    }

    async fn config(&self, name: &str) -> Result<Option<EndpointConfig>> {
        let Some(answer) = self.describe_config(name).await? else { return Ok(None) };
        let first = answer.production_variants().first();
        Ok(Some(EndpointConfig {
            name: answer.endpoint_config_name().unwrap_or(name).to_owned(),
            instance_type: first.and_then(|v| v.instance_type()).map(|t| t.as_str().to_owned()),
            variant: first.and_then(|v| v.variant_name()).unwrap_or_default().to_owned(),
            initial_count: first.and_then(|v| v.initial_instance_count()),
            model: first.and_then(|v| v.model_name()).map(str::to_owned),
        }))
    }

    async fn tagged_models(&self, name_contains: &str, tags: &Map) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let mut pages = self.client.list_models().name_contains(name_contains).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| self.context.explain("sagemaker:ListModels", "cannot list models", &e))?;
            found.extend(
                page.models.unwrap_or_default().into_iter().filter_map(|m| Some((m.model_name?, m.model_arn?))),
            );
        }
        self.tagged(found, tags).await
    }

    async fn tagged_configs(&self, name_contains: &str, tags: &Map) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let mut pages = self.client.list_endpoint_configs().name_contains(name_contains).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| {
                self.context.explain("sagemaker:ListEndpointConfigs", "cannot list endpoint configs", &e)
            })?;
            let configs = page.endpoint_configs.unwrap_or_default().into_iter();
            found.extend(configs.filter_map(|c| Some((c.endpoint_config_name?, c.endpoint_config_arn?))));
        }
        self.tagged(found, tags).await
    }

    async fn delete_model(&self, name: &str) -> Result<()> {
        match self.client.delete_model().model_name(name).send().await {
            Ok(_) => Ok(()),
            Err(e) if is_absent(&code(&e), &message(&e)) => Ok(()),
            Err(e) => Err(self.context.explain("sagemaker:DeleteModel", format!("cannot delete model {name}"), &e)),
        }
    }

    async fn delete_config(&self, name: &str) -> Result<()> {
        match self.client.delete_endpoint_config().endpoint_config_name(name).send().await {
            Ok(_) => Ok(()),
            Err(e) if is_absent(&code(&e), &message(&e)) => Ok(()),
            Err(e) => {
                let what = format!("cannot delete endpoint config {name}");
                Err(self.context.explain("sagemaker:DeleteEndpointConfig", what, &e))
            }
        }
    }

    async fn instances_in_use(&self, instance_type: &str) -> Result<i64> {
        let mut names = Vec::new();
        let mut pages = self.client.list_endpoints().into_paginator().send();
        while let Some(page) = pages.next().await {
            let page =
                page.map_err(|e| self.context.explain("sagemaker:ListEndpoints", "cannot list endpoints", &e))?;
            names.extend(
                page.endpoints
                    .unwrap_or_default()
                    .into_iter()
                    .filter(|e| holds_instances(e.endpoint_status()))
                    .filter_map(|e| e.endpoint_name),
            );
        }
        stream::iter(names.into_iter().map(|name| async move { self.held(&name, instance_type).await }))
            .buffer_unordered(AT_ONCE)
            .try_fold(0, |sum, held| async move { Ok(sum + held) })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absence_is_told_from_bad_input() {
        assert!(is_absent("ValidationException", "Could not find endpoint \"demo\"."));
        assert!(is_absent("ValidationException", "Could not find endpoint configuration \"demo\"."));
        assert!(!is_absent("ValidationException", "1 validation error detected"));
        assert!(!is_absent("ThrottlingException", "Could not find capacity"));
    }

    #[test]
    fn what_runs_and_what_is_wanted_both_count() {
        let variant = |current, desired| {
            ProductionVariantSummary::builder()
                .variant_name("v")
                .set_current_instance_count(current)
                .set_desired_instance_count(desired)
                .build()
        };
        assert_eq!(instances(&variant(Some(3), Some(1))), Some(3));
        assert_eq!(instances(&variant(Some(0), Some(2))), Some(2));
        assert_eq!(instances(&variant(None, None)), None);
        assert!(!holds_instances(Some(&EndpointStatus::Failed)));
        assert!(holds_instances(Some(&EndpointStatus::Updating)));
    }
}
