//! Application Auto Scaling.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_applicationautoscaling::types::{ScalableDimension, ServiceNamespace};

use super::errors::Context;
use crate::cloud::{ScalableTarget, Scaling, Schedule};
use crate::error::Result;

/// [`Scaling`] on Application Auto Scaling.
pub(super) struct AutoScaling {
    client: aws_sdk_applicationautoscaling::Client,
    context: Arc<Context>,
}

impl AutoScaling {
    pub(super) fn new(client: aws_sdk_applicationautoscaling::Client, context: Arc<Context>) -> Self {
        AutoScaling { client, context }
    }
}

const DIMENSION: ScalableDimension = ScalableDimension::SageMakerVariantDesiredInstanceCount;

#[async_trait]
impl Scaling for AutoScaling {
    async fn target(&self, endpoint: &str, variant: &str) -> Result<Option<ScalableTarget>> {
        let id = format!("endpoint/{endpoint}/variant/{variant}");
        let what = || format!("cannot read the scaling of endpoint {endpoint}");

        let targets = self
            .client
            .describe_scalable_targets()
            .service_namespace(ServiceNamespace::Sagemaker)
            .resource_ids(&id)
            .scalable_dimension(DIMENSION)
            .send()
            .await
            .map_err(|e| self.context.explain("application-autoscaling:DescribeScalableTargets", what(), &e))?;
        let Some(target) = targets.scalable_targets.unwrap_or_default().into_iter().next() else { return Ok(None) };

        let mut policies = Vec::new();
        let mut pages = self
            .client
            .describe_scaling_policies()
            .service_namespace(ServiceNamespace::Sagemaker)
            .resource_id(&id)
            .scalable_dimension(DIMENSION)
            .into_paginator()
            .send();
        while let Some(page) = pages.next().await {
            let page =
                page.map_err(|e| self.context.explain("application-autoscaling:DescribeScalingPolicies", what(), &e))?;
            policies.extend(page.scaling_policies.unwrap_or_default().into_iter().map(|p| p.policy_name));
        }

        let mut schedules = Vec::new();
        let mut pages = self
            .client
            .describe_scheduled_actions()
            .service_namespace(ServiceNamespace::Sagemaker)
            .resource_id(&id)
            .scalable_dimension(DIMENSION)
            .into_paginator()
            .send();
        while let Some(page) = pages.next().await {
            let page =
                page.map_err(|e| self.context.explain("application-autoscaling:DescribeScheduledActions", what(), &e))?;
            schedules.extend(page.scheduled_actions.unwrap_or_default().into_iter().map(|action| {
                let bounds = action.scalable_target_action;
                Schedule {
                    name: action.scheduled_action_name,
                    when: action.schedule,
                    timezone: action.timezone,
                    min: bounds.as_ref().and_then(|b| b.min_capacity),
                    max: bounds.as_ref().and_then(|b| b.max_capacity),
                }
            }));
        }
        policies.sort();
        schedules.sort_by(|a: &Schedule, b| a.name.cmp(&b.name));
        Ok(Some(ScalableTarget { min: target.min_capacity, max: target.max_capacity, policies, schedules }))
    }
}
