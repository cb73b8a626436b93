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

/// All rows.
pub fn all() -> Vec<Rule> {
    [
        crate::cfn::RULES,
        crate::ecr::RULES,
        crate::iam::RULES,
        crate::lambda::RULES,
        crate::logs::RULES,
        crate::quotas::RULES,
        crate::s3::RULES,
        crate::sagemaker::RULES,
        crate::scaling::RULES,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn every_rule_has_a_name_of_its_own_a_source_and_a_text() {
        let mut seen = BTreeSet::new();
        for rule in super::all() {
            assert!(seen.insert(rule.id), "{} is there twice", rule.id);
            let (service, name) = rule.id.split_once('.').unwrap();
            assert!(!service.is_empty() && !name.is_empty() && !rule.source.is_empty(), "{}", rule.id);
            assert!(rule.text.ends_with('.'), "{}", rule.id);
        }
        assert!(seen.len() > 50);
    }
}
