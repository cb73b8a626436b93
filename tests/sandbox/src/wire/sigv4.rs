//! Signature Version 4, recomputed from the request as it came (AWS doc: Create a signed AWS API request).
//!
//! Written from the documentation and not with the SDK's signer, so that a fault of the signer shows.

use axum::http::HeaderMap;
use axum::http::request::Parts;
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

use crate::world::ApiError;

/// What stays as it is in a canonical query (RFC 3986); a canonical path keeps its slashes too.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const PATH: &AsciiSet = &UNRESERVED.remove(b'/');
/// How far clocks may differ, in milliseconds: `(... - 5 min.)` in Lambda's own message (aws/aws-sdk-go#859).
const SKEW: i64 = 5 * 60 * 1000;

/// What a request says of its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Access key id.
    pub key: String,
    /// `yyyymmdd` of the scope.
    pub date: String,
    /// Region of the scope.
    pub region: String,
    /// Service of the scope.
    pub service: String,
    signed: Vec<String>,
    signature: String,
}

/// Reads the Authorization header. None if the request is not signed with SigV4.
pub fn claim(headers: &HeaderMap) -> Option<Result<Claim, ApiError>> {
    let value = headers.get("authorization")?.to_str().ok()?;
    let fields = value.strip_prefix("AWS4-HMAC-SHA256")?;
    let field = |name: &str| {
        fields.split(',').find_map(|f| f.trim().strip_prefix(name)?.strip_prefix('=')).filter(|v| !v.is_empty())
    };
    let read = || -> Result<Claim, ApiError> {
        let need = |name: &str| {
            field(name).ok_or_else(|| {
                incomplete(format!("Authorization header requires '{name}' parameter. Authorization={value}"))
            })
        };
        let (credential, signed, signature) = (need("Credential")?, need("SignedHeaders")?, need("Signature")?);
        let mut parts = credential.rsplitn(5, '/');
        let mut part = || parts.next().unwrap_or_default().to_owned();
        let (terminal, service, region, date, key) = (part(), part(), part(), part(), part());
        if terminal != "aws4_request" || key.is_empty() {
            return Err(incomplete(format!(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got \
                 '{credential}'"
            )));
        }
        let signed = signed.split(';').map(str::to_owned).collect();
        Ok(Claim { key, date, region, service, signed, signature: signature.to_owned() })
    };
    Some(read())
}

/// Checks a claim against the request. `path` is as sent, `body` the hexadecimal SHA-256 of the body, `now`
/// milliseconds since 1970.
pub fn verify(claim: &Claim, parts: &Parts, body: &str, secret: &str, now: i64) -> Result<(), ApiError> {
    let stamp = header(&parts.headers, "x-amz-date").ok_or_else(|| {
        incomplete("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
    })?;
    let at = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", &stamp)
        .and_then(|t| t.to_zoned(jiff::tz::TimeZone::UTC))
        .map_err(|_| incomplete(format!("Date must be in ISO-8601 'basic format'. Got '{stamp}'.")))?
        .timestamp()
        .as_millisecond();
    for needed in ["host", "x-amz-date"] {
        if !claim.signed.iter().any(|h| h == needed) {
            return Err(invalid(format!("'{needed}' must be a 'SignedHeader' in the AWS Authorization.")));
        }
    }
    if !stamp.starts_with(&claim.date) {
        return Err(invalid(format!(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != '{stamp}', \
             from '{stamp}'.",
            claim.date
        )));
    }
    let (clock, oldest, newest) = (compact(now), compact(now - SKEW), compact(now + SKEW));
    if at < now - SKEW {
        return Err(invalid(format!("Signature expired: {stamp} is now earlier than {oldest} ({clock} - 5 min.)")));
    }
    if at > now + SKEW {
        return Err(invalid(format!(
            "Signature not yet current: {stamp} is still later than {newest} ({clock} + 5 min.)"
        )));
    }
    if signature(claim, parts, &stamp, body, secret) != claim.signature {
        return Err(invalid(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access \
             Key and signing method. Consult the service documentation for details.",
        ));
    }
    Ok(())
}

/// The signature that the request should have. `stamp` is its X-Amz-Date.
pub fn signature(claim: &Claim, parts: &Parts, stamp: &str, body: &str, secret: &str) -> String {
    let request = canonical(claim, parts, body);
    let scope = format!("{}/{}/{}/aws4_request", claim.date, claim.region, claim.service);
    let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", hex::encode(Sha256::digest(request.as_bytes())));
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in [claim.date.as_str(), &claim.region, &claim.service, "aws4_request"] {
        key = mac(&key, part);
    }
    hex::encode(mac(&key, &text))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn canonical(claim: &Claim, parts: &Parts, body: &str) -> String {
    // Every service but S3 signs the encoded path, encoded once more.
    let path = utf8_percent_encode(parts.uri.path(), PATH).to_string();
    let mut query: Vec<(String, String)> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let again = |text: &str| {
                let raw: Vec<u8> = percent_decode_str(text).collect();
                percent_encoding::percent_encode(&raw, UNRESERVED).to_string()
            };
            (again(name), again(value))
        })
        .collect();
    query.sort();
    let query: Vec<String> = query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let headers: String = claim
        .signed
        .iter()
        .map(|name| format!("{name}:{}\n", header(&parts.headers, name).unwrap_or_default()))
        .collect();
    format!("{}\n{path}\n{}\n{headers}\n{}\n{body}", parts.method, query.join("&"), claim.signed.join(";"))
}

/// All values of a header, each trimmed and with single spaces.
fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let values: Vec<String> = headers
        .get_all(name)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    if values.is_empty() { None } else { Some(values.join(",")) }
}

fn compact(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).unwrap_or_default().strftime("%Y%m%dT%H%M%SZ").to_string()
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new("InvalidSignatureException", text).status(403)
}

fn incomplete(text: impl Into<String>) -> ApiError {
    ApiError::new("IncompleteSignatureException", text).status(403)
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use axum::http::Request;

    use super::*;

    const NOW: i64 = 1_440_938_160_000;
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    /// A request of the documentation's test suite with its signature.
    fn signed(method: &str, uri: &str, signature: &str) -> Parts {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature={signature}"
        );
        Request::builder()
            .method(method)
            .uri(uri)
            .header("host", "example.amazonaws.com")
            .header("x-amz-date", "20150830T123600Z")
            .header("authorization", authorization)
            .body(Bytes::new())
            .unwrap()
            .into_parts()
            .0
    }

    fn check(parts: &Parts, now: i64) -> Result<(), String> {
        let claim = claim(&parts.headers).unwrap().unwrap();
        let body = hex::encode(Sha256::digest(b""));
        verify(&claim, parts, &body, SECRET, now).map_err(|e| e.message)
    }

    const VANILLA: &str = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";

    #[test]
    fn the_documentations_signatures_are_right() {
        for (method, uri, signature) in [
            ("GET", "/", VANILLA),
            ("POST", "/", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            (
                "GET",
                "/?Param2=value2&Param1=value1",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
        ] {
            assert_eq!(check(&signed(method, uri, signature), NOW), Ok(()), "{method} {uri}");
        }
    }

    #[test]
    fn whatever_is_changed_breaks_the_signature() {
        for (method, uri) in [("PUT", "/"), ("GET", "/a"), ("GET", "/?a=b")] {
            assert!(
                check(&signed(method, uri, VANILLA), NOW).unwrap_err().contains("does not match"),
                "{method} {uri}"
            );
        }
    }

    #[test]
    fn five_minutes_are_allowed() {
        let parts = signed("GET", "/", VANILLA);
        let minutes = |n: i64| NOW + n * 60_000;
        assert_eq!(check(&parts, minutes(5)), Ok(()));
        assert_eq!(check(&parts, minutes(-5)), Ok(()));
        assert_eq!(
            check(&parts, minutes(6)).unwrap_err(),
            "Signature expired: 20150830T123600Z is now earlier than 20150830T123700Z (20150830T124200Z - 5 min.)"
        );
        assert!(check(&parts, minutes(-6)).unwrap_err().starts_with("Signature not yet current: "));
    }

    #[test]
    fn headers_that_are_no_signature_say_what_is_missing() {
        let said = |authorization: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("authorization", authorization.parse().unwrap());
            claim(&headers).map(|c| c.unwrap_err().message)
        };
        assert_eq!(said("Basic abc"), None);
        let missing = said("AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request, SignedHeaders=host").unwrap();
        assert!(missing.starts_with("Authorization header requires 'Signature' parameter."), "{missing}");
        let short = said("AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=x").unwrap();
        assert!(short.starts_with("Credential must have exactly 5"), "{short}");
    }
}
