//! STS.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;

use super::errors::Context;
use crate::cloud::{Caller, Identity};
use crate::error::{Error, Result};

/// [`Identity`] on STS. Tells the S3 adapter the account once it is known.
pub(super) struct Sts {
    client: aws_sdk_sts::Client,
    context: Arc<Context>,
    account: Arc<OnceLock<String>>,
}

impl Sts {
    pub(super) fn new(client: aws_sdk_sts::Client, context: Arc<Context>, account: Arc<OnceLock<String>>) -> Self {
        Sts { client, context, account }
    }
}

#[async_trait]
impl Identity for Sts {
    async fn caller(&self) -> Result<Caller> {
        const WHAT: &str = "cannot tell which AWS account this is";
        let answer = self
            .client
            .get_caller_identity()
            .send()
            .await
            .map_err(|e| self.context.explain("sts:GetCallerIdentity", WHAT, &e))?;
        let (Some(account), Some(arn)) = (answer.account, answer.arn) else {
            return Err(Error::failed(WHAT).why("STS answered without an account"));
        };
        // A second call can only learn the same account: the credentials chain is fixed for the run.
        let _ = self.account.set(account.clone());
        Ok(Caller { account, arn })
    }
}
