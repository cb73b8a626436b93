//! Authorization tokens: what the registry accepts as a password, without keeping any.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::world::{Answer, Ctx, KEY, World, epoch};

/// Twelve hours in milliseconds (ECR User Guide, Private registry authentication).
const LIFETIME: i64 = 12 * 60 * 60 * 1000;

/// GetAuthorizationToken.
pub fn get(world: &World, ctx: &Ctx) -> Answer {
    let expires = ctx.now + LIFETIME;
    let token = STANDARD.encode(format!("AWS:{}", sign(&ctx.region, expires)));
    Ok(json!({"authorizationData": [{
        "authorizationToken": token,
        "expiresAt": epoch(expires),
        "proxyEndpoint": world.url,
    }]}))
}

/// A password for a region until a time.
pub fn sign(text: &str, expires: i64) -> String {
    let mac = Sha256::digest(format!("{KEY}\n{text}\n{expires}"));
    format!("{text}.{expires}.{}", hex::encode(mac))
}

/// What was signed, if the signature is right and not over. The error is for people.
pub fn verify(signed: &str, now: i64) -> Result<&str, &'static str> {
    const INVALID: &str = "Your authorization token is invalid. Reauthenticate and try again.";
    let mut fields = signed.rsplitn(3, '.');
    let (_, expires, text) = (fields.next(), fields.next(), fields.next());
    let (Some(text), Some(expires)) = (text, expires.and_then(|e| e.parse().ok())) else { return Err(INVALID) };
    if sign(text, expires) != signed {
        return Err(INVALID);
    }
    if expires <= now {
        return Err("Your authorization token has expired. Reauthenticate and try again.");
    }
    Ok(text)
}

/// The region of an `Authorization: Basic` header.
pub fn region_of(header: Option<&str>, now: i64) -> Result<String, &'static str> {
    let encoded = header.and_then(|h| h.strip_prefix("Basic ").or_else(|| h.strip_prefix("basic ")));
    let bytes = encoded.and_then(|e| STANDARD.decode(e.trim()).ok());
    let pair = bytes.and_then(|b| String::from_utf8(b).ok()).ok_or("Not Authorized")?;
    let password = pair.strip_prefix("AWS:").ok_or("Not Authorized")?;
    verify(password, now).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_end_and_cannot_be_made_up() {
        let signed = sign("eu-west-1", 1000);
        assert_eq!(verify(&signed, 999), Ok("eu-west-1"));
        assert!(verify(&signed, 1000).is_err());
        assert!(verify(&signed.replace(".1000.", ".2000."), 999).is_err());
        assert!(verify("", 0).is_err());
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        assert_eq!(region_of(Some(&basic(&format!("AWS:{signed}"))), 0).as_deref(), Ok("eu-west-1"));
        assert!(region_of(Some(&basic(&format!("me:{signed}"))), 0).is_err());
        assert!(region_of(None, 0).is_err());
    }
}
