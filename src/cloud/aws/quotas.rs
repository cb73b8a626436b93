//! Service Quotas.

use std::sync::Arc;

use async_trait::async_trait;

use super::errors::{Context, code, is_denial, status};
use crate::cloud::Quotas;
use crate::error::Result;

const SERVICE: &str = "sagemaker";

/// Quota codes of `<type> for endpoint usage`, the same in every region; they spare listing some thousand quotas. The
/// name is compared before a value is believed, so a wrong line costs time, never a wrong number.
const CODES: &[(&str, &str)] = &[
    ("ml.g4dn.xlarge", "L-B67CFA0C"),
    ("ml.g4dn.2xlarge", "L-EA346344"),
    ("ml.g4dn.4xlarge", "L-31522FA6"),
    ("ml.g4dn.8xlarge", "L-7D28AD75"),
    ("ml.g4dn.12xlarge", "L-07BEB181"),
    ("ml.g4dn.16xlarge", "L-8679F6F3"),
    ("ml.g5.xlarge", "L-1928E07B"),
    ("ml.g5.2xlarge", "L-9614C779"),
    ("ml.g5.4xlarge", "L-C1B9A48D"),
    ("ml.g5.8xlarge", "L-065D610E"),
    ("ml.g5.12xlarge", "L-65C4BD00"),
    ("ml.g5.16xlarge", "L-962705EA"),
    ("ml.g5.24xlarge", "L-6821867B"),
    ("ml.g5.48xlarge", "L-0100B823"),
    ("ml.g6.xlarge", "L-D470D954"),
    ("ml.g6.2xlarge", "L-98BDE811"),
    ("ml.g6.4xlarge", "L-DFB10FDE"),
    ("ml.g6.8xlarge", "L-B0F91871"),
    ("ml.g6.12xlarge", "L-0A29AACF"),
    ("ml.g6.16xlarge", "L-913947FA"),
    ("ml.g6.24xlarge", "L-6A3E5D65"),
    ("ml.g6.48xlarge", "L-28FEB563"),
    ("ml.g6e.xlarge", "L-B0729CB4"),
    ("ml.g6e.2xlarge", "L-F8D7F460"),
    ("ml.g6e.4xlarge", "L-93531071"),
    ("ml.g6e.8xlarge", "L-96A28D02"),
    ("ml.g6e.12xlarge", "L-60313EA3"),
    ("ml.g6e.16xlarge", "L-2930A179"),
    ("ml.g6e.24xlarge", "L-AE407E8B"),
    ("ml.g6e.48xlarge", "L-E0C458EA"),
    ("ml.p4d.24xlarge", "L-09F79647"),
    ("ml.p5.48xlarge", "L-16AF71F1"),
];

/// [`Quotas`] on Service Quotas.
pub(super) struct ServiceQuotas {
    client: aws_sdk_servicequotas::Client,
    context: Arc<Context>,
}

impl ServiceQuotas {
    pub(super) fn new(client: aws_sdk_servicequotas::Client, context: Arc<Context>) -> Self {
        ServiceQuotas { client, context }
    }
}

fn known_code(instance_type: &str) -> Option<&'static str> {
    CODES.iter().find(|(name, _)| *name == instance_type).map(|(_, code)| *code)
}

/// Whether an error means that the quota cannot be known here, as in stand-ins, some partitions and narrow roles. A
/// server error that outlasts all retries counts too: a check before the fact must not stop a deployment.
fn is_unknown(code: &str, status: Option<u16>) -> bool {
    matches!(
        code,
        "NoSuchResourceException"
            | "IllegalArgumentException"
            | "UnknownOperationException"
            | "InvalidAction"
            | "NotImplemented"
            | "NotFound"
    ) || is_denial(code, status)
        || matches!(status, Some(404 | 500..=599))
}

#[async_trait]
impl Quotas for ServiceQuotas {
    async fn endpoint_usage(&self, instance_type: &str) -> Result<Option<f64>> {
        let name = format!("{instance_type} for endpoint usage");
        let what = || format!("cannot read the quota `{name}`");
        if let Some(known) = known_code(instance_type) {
            match self.client.get_service_quota().service_code(SERVICE).quota_code(known).send().await {
                Ok(answer) => {
                    let quota = answer.quota.filter(|q| q.quota_name() == Some(name.as_str()));
                    if let Some(value) = quota.and_then(|q| q.value) {
                        return Ok(Some(value));
                    }
                    tracing::debug!("quota code {known} is not `{name}` here; listing");
                }
                // Listing may still know it, unless we may not ask at all.
                Err(e) if code(&e) == "NoSuchResourceException" => {}
                Err(e) if is_unknown(&code(&e), status(&e)) => {
                    tracing::debug!("quota `{name}` is unknown: {}", code(&e));
                    return Ok(None);
                }
                Err(e) => return Err(self.context.explain("servicequotas:GetServiceQuota", what(), &e)),
            }
        }
        let mut pages =
            self.client.list_service_quotas().service_code(SERVICE).max_results(100).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = match page {
                Ok(page) => page,
                Err(e) if is_unknown(&code(&e), status(&e)) => {
                    tracing::debug!("quota `{name}` is unknown: {}", code(&e));
                    return Ok(None);
                }
                Err(e) => return Err(self.context.explain("servicequotas:ListServiceQuotas", what(), &e)),
            };
            let found = page.quotas.unwrap_or_default().into_iter().find(|q| q.quota_name() == Some(name.as_str()));
            if let Some(quota) = found {
                return Ok(quota.value);
            }
        }
        tracing::debug!("no quota is called `{name}`");
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_well_formed() {
        let codes: std::collections::BTreeSet<_> = CODES.iter().map(|(_, code)| code).collect();
        assert_eq!(codes.len(), CODES.len());
        assert!(CODES.iter().all(|(name, code)| name.starts_with("ml.") && code.len() == 10 && code.starts_with("L-")));
        assert_eq!(known_code("ml.g5.xlarge"), Some("L-1928E07B"));
        assert_eq!(known_code("ml.zz.xlarge"), None);
    }

    #[test]
    fn a_denial_is_not_an_answer() {
        assert!(is_unknown("AccessDeniedException", Some(400)));
        assert!(is_unknown("NoSuchResourceException", Some(400)));
        assert!(is_unknown("ServiceUnavailable", Some(500)));
        assert!(!is_unknown("TooManyRequestsException", Some(429)));
        assert!(!is_unknown("", None));
    }
}
