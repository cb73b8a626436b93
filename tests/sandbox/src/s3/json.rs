//! Between the API's JSON (`LocationConstraint`) and the field names of crate `s3s` (`location_constraint`).

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::world::ApiError;

/// Members whose names do not follow the rule.
const IRREGULAR: &[(&str, &str)] =
    &[("KMSMasterKeyID", "kms_master_key_id"), ("SSEAlgorithm", "sse_algorithm"), ("ID", "id")];

/// A value of crate `s3s` in the API's JSON.
pub fn to_api(value: &impl Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(value).map(|v| rename(v, &pascal)).map_err(malformed)
}

/// The API's JSON as a value of crate `s3s`.
pub fn from_api<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_json::from_value(rename(value, &snake)).map_err(malformed)
}

fn malformed(error: serde_json::Error) -> ApiError {
    ApiError::new("MalformedXML", format!("The XML you provided was not well-formed: {error}"))
}

fn rename(value: Value, name: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(|v| rename(v, name)).collect(),
        Value::Object(members) => {
            let members = members.into_iter().filter(|(_, v)| !v.is_null());
            Value::Object(members.map(|(k, v)| (name(&k), rename(v, name))).collect::<Map<_, _>>())
        }
        other => other,
    }
}

fn pascal(snake: &str) -> String {
    if let Some((irregular, _)) = IRREGULAR.iter().find(|(_, s)| *s == snake) {
        return (*irregular).to_owned();
    }
    snake.split('_').map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect()
}

fn snake(pascal: &str) -> String {
    if let Some((_, irregular)) = IRREGULAR.iter().find(|(p, _)| *p == pascal) {
        return (*irregular).to_owned();
    }
    let mut out = String::new();
    for c in pascal.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use s3s::dto;
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_survive_both_ways() -> Result<(), ApiError> {
        let lifecycle = json!({"Rules": [{
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
            "Filter": {"Prefix": "models/"},
            "ID": "abort",
            "NoncurrentVersionExpiration": {"NoncurrentDays": 7},
            "Status": "Enabled",
        }]});
        let typed: dto::BucketLifecycleConfiguration = from_api(lifecycle.clone())?;
        assert_eq!(typed.rules[0].id.as_deref(), Some("abort"));
        assert_eq!(to_api(&typed)?, lifecycle);
        let encryption = json!({"Rules": [{
            "ApplyServerSideEncryptionByDefault": {"KMSMasterKeyID": "arn", "SSEAlgorithm": "aws:kms"},
            "BucketKeyEnabled": true,
        }]});
        let typed: dto::ServerSideEncryptionConfiguration = from_api(encryption.clone())?;
        assert_eq!(to_api(&typed)?, encryption);
        assert!(from_api::<dto::BucketLifecycleConfiguration>(json!({"Rules": "x"})).is_err());
        Ok(())
    }
}
