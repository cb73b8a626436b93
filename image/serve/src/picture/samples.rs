//! Pictures for the tests, made by rule.
