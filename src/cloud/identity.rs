//! The port to STS.

use async_trait::async_trait;

use crate::error::Result;

/// Who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Twelve digits.
    pub account: String,
    /// The principal.
    pub arn: String,
}

/// STS.
#[async_trait]
pub trait Identity: Send + Sync {
    /// GetCallerIdentity.
    async fn caller(&self) -> Result<Caller>;
}
