//! The table of what AWS refuses: each rule with its source. A service module owns its rows; a test proves
//! that every row bites.

/// One rule.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Stable name, as `sagemaker.config-in-use`.
    pub id: &'static str,
    /// Where it is written: API model shape, documentation page, or issue thread.
    pub source: &'static str,
    /// The rule in one sentence.
    pub text: &'static str,
}
