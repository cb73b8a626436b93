//! Lambda's REST routes: method and path to operation and input.

use axum::http::Method;
use serde_json::{Map, Value};

/// (method, path with `{Member}` holes, operation, HTTP status of success); from the API model's `http` traits.
type Route = (&'static str, &'static str, &'static str, u16);

const ROUTES: &[Route] = &[
    ("POST", "/2015-03-31/functions", "CreateFunction", 201),
    ("GET", "/2015-03-31/functions", "ListFunctions", 200),
    ("GET", "/2015-03-31/functions/{FunctionName}", "GetFunction", 200),
    ("DELETE", "/2015-03-31/functions/{FunctionName}", "DeleteFunction", 204),
    ("GET", "/2015-03-31/functions/{FunctionName}/configuration", "GetFunctionConfiguration", 200),
    ("PUT", "/2015-03-31/functions/{FunctionName}/configuration", "UpdateFunctionConfiguration", 200),
    ("PUT", "/2015-03-31/functions/{FunctionName}/code", "UpdateFunctionCode", 200),
    ("PUT", "/2017-10-31/functions/{FunctionName}/concurrency", "PutFunctionConcurrency", 200),
    ("DELETE", "/2017-10-31/functions/{FunctionName}/concurrency", "DeleteFunctionConcurrency", 204),
    ("GET", "/2019-09-30/functions/{FunctionName}/concurrency", "GetFunctionConcurrency", 200),
    ("POST", "/2021-10-31/functions/{FunctionName}/url", "CreateFunctionUrlConfig", 201),
    ("GET", "/2021-10-31/functions/{FunctionName}/url", "GetFunctionUrlConfig", 200),
    ("PUT", "/2021-10-31/functions/{FunctionName}/url", "UpdateFunctionUrlConfig", 200),
    ("DELETE", "/2021-10-31/functions/{FunctionName}/url", "DeleteFunctionUrlConfig", 204),
    ("POST", "/2015-03-31/functions/{FunctionName}/policy", "AddPermission", 201),
    ("GET", "/2015-03-31/functions/{FunctionName}/policy", "GetPolicy", 200),
    ("DELETE", "/2015-03-31/functions/{FunctionName}/policy/{StatementId}", "RemovePermission", 204),
    ("GET", "/2017-03-31/tags/{Resource}", "ListTags", 200),
    ("POST", "/2017-03-31/tags/{Resource}", "TagResource", 204),
    ("DELETE", "/2017-03-31/tags/{Resource}", "UntagResource", 204),
];

/// A request that fits a route.
#[derive(Debug, PartialEq)]
pub struct Matched {
    /// API name.
    pub operation: &'static str,
    /// HTTP status of success.
    pub status: u16,
    /// Path and query members.
    pub input: Map<String, Value>,
}

/// Finds the route. Query members keep their names, which in Lambda's API are the member names; a repeated one is a list.
pub fn route(method: &Method, path: &str, query: Option<&str>) -> Option<Matched> {
    let path = path.trim_end_matches('/');
    ROUTES.iter().filter(|r| r.0 == method.as_str()).find_map(|(_, pattern, operation, status)| {
        let mut input = holes(pattern, path)?;
        for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let name = match key.as_ref() {
                "tagKeys" => "TagKeys",
                other => other,
            };
            if name == "TagKeys" {
                match input.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
                    Value::Array(list) => list.push(Value::String(value.into_owned())),
                    other => *other = Value::String(value.into_owned()),
                }
            } else {
                input.insert(name.to_owned(), Value::String(value.into_owned()));
            }
        }
        Some(Matched { operation, status: *status, input })
    })
}

fn holes(pattern: &str, path: &str) -> Option<Map<String, Value>> {
    let (mut have, mut want) = (path.split('/'), pattern.split('/'));
    let mut found = Map::new();
    loop {
        match (have.next(), want.next()) {
            (None, None) => return Some(found),
            (Some(h), Some(w)) => match w.strip_prefix('{').and_then(|w| w.strip_suffix('}')) {
                Some(name) if !h.is_empty() => {
                    let text = percent_encoding::percent_decode_str(h).decode_utf8().ok()?;
                    found.insert(name.to_owned(), Value::String(text.into_owned()));
                }
                Some(_) => return None,
                None if h == w => {}
                None => return None,
            },
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn holes_are_filled_and_decoded() {
        let got = route(&Method::DELETE, "/2015-03-31/functions/a%3Ab/policy/s1", Some("Qualifier=x")).unwrap();
        assert_eq!(got.operation, "RemovePermission");
        assert_eq!(Value::Object(got.input), json!({"FunctionName": "a:b", "StatementId": "s1", "Qualifier": "x"}));
    }

    #[test]
    fn create_accepts_a_trailing_slash_and_an_unknown_path_fits_nothing() {
        assert_eq!(route(&Method::POST, "/2015-03-31/functions/", None).unwrap().operation, "CreateFunction");
        assert_eq!(route(&Method::POST, "/2015-03-31/layers", None), None);
        assert_eq!(route(&Method::GET, "/2015-03-31/functions//policy", None), None);
    }

    #[test]
    fn repeated_tag_keys_are_a_list() {
        let got = route(&Method::DELETE, "/2017-03-31/tags/arn", Some("tagKeys=a&tagKeys=b")).unwrap();
        assert_eq!(got.input["TagKeys"], json!(["a", "b"]));
    }
}
