//! What the answers of hubs mean. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::source::Source;
use crate::error::{Error, Kind};

/// Why something did not come.
#[derive(Debug)]
pub(super) enum Fault {
    /// Ask again soon: why.
    Broken(String),
    /// Ask again after this time: why.
    Wait(Duration, String),
    /// The content is not the one that was begun.
    Changed,
    /// A signed address is not valid any more; a new one is needed.
    Expired(u16),
    /// It will not come.
    Fatal(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Fatal(error)
    }
}

/// Who was asked, for the sentence of an error.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// What for.
    pub(super) source: &'a Source,
    /// The hub's address, as in `https://huggingface.co`.
    pub(super) hub: &'a str,
    /// Whether a token was sent.
    pub(super) token: bool,
    /// Whether the lock's revision was asked for.
    pub(super) locked: bool,
    /// Whether the answer came from another host than the hub's, by a signed address.
    pub(super) signed: bool,
}

/// How long to wait by the headers of a 429 or 503; `None` if they do not say.
pub(super) fn patience(headers: &BTreeMap<String, String>) -> Option<Duration> {
    // RateLimit: "resolvers";r=0;t=42 says how many seconds the window still lasts. Of several the ones that are used up
    // count.
    let limit = headers.get("ratelimit").and_then(|value| {
        let policies = value.split(',').map(|policy| {
            let number = |name: &str| {
                policy
                    .split(';')
                    .find_map(|part| part.trim().strip_prefix(name))
                    .and_then(|n| n.trim().parse::<u64>().ok())
            };
            (number("r="), number("t="))
        });
        let used_up = policies.filter(|(left, _)| left.is_none_or(|left| left == 0));
        used_up.filter_map(|(_, time)| time).max().map(|time| Duration::from_secs(time + 1))
    });
    limit.or_else(|| retry_after(headers))
}

/// Retry-After in seconds, or as a date, which is compared with the server's own clock.
fn retry_after(headers: &BTreeMap<String, String>) -> Option<Duration> {
    let value = headers.get("retry-after")?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    // The form of dates in HTTP is one of those in mail.
    let date = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|date| date.timestamp());
    let now = headers.get("date").and_then(|text| date(text))?;
    Some(Duration::try_from(date(value)?.duration_since(now)).unwrap_or_default())
}

/// Whether an ETag says that the bytes are the same, and not only the meaning (RFC 9110, 8.8.1).
pub(super) fn is_strong(etag: &str) -> bool {
    !etag.trim_start().starts_with("W/")
}

/// Without its quotes and the mark of a weak one.
pub(super) fn bare(etag: &str) -> String {
    etag.trim().trim_start_matches("W/").trim_matches('"').to_owned()
}

/// What an answer means that brings no content.
pub(super) fn judge(asked: Asked<'_>, status: u16, headers: &BTreeMap<String, String>) -> Fault {
    let header = |name: &str| headers.get(name).map(String::as_str).unwrap_or_default();
    let (source, hub) = (asked.source, asked.hub);
    let what = format!("cannot fetch {source}");
    let code = header("x-error-code");
    let said = |error: Error| match header("x-error-message") {
        "" => error.why(format!("the server answers {status}")),
        text => error.why(format!("the server answers {status}: {}", text.chars().take(200).collect::<String>())),
    };
    let access = || said(Error::new(Kind::Access, what.clone()));
    match status {
        408 | 425 | 500 | 502 | 504 => Fault::Broken(format!("the server answers {status}")),
        429 | 503 => match patience(headers) {
            Some(time) => Fault::Wait(time, format!("the server answers {status}, too many requests")),
            None => Fault::Broken(format!("the server answers {status}")),
        },
        400 | 401 | 403 | 410 if asked.signed => Fault::Expired(status),
        412 | 416 => Fault::Changed,
        401 | 403 => Fault::Fatal(match source {
            Source::HuggingFace { .. } if header("x-error-message").contains("Invalid credentials") => access()
                .why("the token is not valid")
                .next("make a new one at https://huggingface.co/settings/tokens and set HF_TOKEN"),
            Source::HuggingFace { repo, .. } if code == "GatedRepo" || status == 403 => {
                let page = format!("{hub}/{repo}");
                match asked.token {
                    false => access()
                        .why("the model is gated, and there is no token")
                        .next(format!("accept its terms at {page}, make a token at {hub}/settings/tokens and set HF_TOKEN")),
                    true => access()
                        .why("the model is gated: its terms were not accepted, or the token may not read gated repositories")
                        .next(format!("accept its terms at {page}; a fine-grained token also needs access to gated repositories")),
                }
            }
            Source::HuggingFace { repo, .. } if !asked.token => access()
                .why(format!("there is no repository {repo}, or it is private; without a token Hugging Face does not tell which"))
                .next(format!("look at {hub}/{repo}; if it is private, set HF_TOKEN")),
            Source::HuggingFace { repo, .. } => access()
                .why(format!("there is no repository {repo}, or this token may not read it"))
                .next(format!("look at {hub}/{repo} with the account that the token belongs to")),
            Source::Civitai { .. } if asked.token => access()
                .why("the file needs rights that this token does not have, or the token is not valid")
                .next("look at the model's page while logged in; make a new key at https://civitai.com/user/account"),
            Source::Civitai { .. } => access()
                .why("the file needs an account")
                .next("make a key at https://civitai.com/user/account and set CIVITAI_API_TOKEN"),
            _ => access().next("only files that need no login can be fetched by URL; download it and use the path"),
        }),
        404 | 410 => Fault::Fatal(match source {
            Source::HuggingFace { repo, revision, .. } => {
                let error = said(Error::usage(what.clone()));
                match code {
                    "RepoNotFound" if asked.token => error
                        .why(format!("there is no repository {repo}, or this token may not read it"))
                        .next(format!("correct its name, or look at {hub}/{repo} with the account that the token belongs to")),
                    "RepoNotFound" => error.why(format!("there is no repository {repo}")).next("correct its name"),
                    _ if asked.locked && code != "EntryNotFound" => error
                        .why("the commit in comfy-deploy.lock is not there any more")
                        .next("take the present one: comfy-deploy model lock --upgrade"),
                    "RevisionNotFound" => error
                        .why(format!("{repo} has no revision {revision}"))
                        .next(format!("choose one of {hub}/{repo}/tree/main")),
                    _ => error
                        .why(format!("{repo} has no such file at {revision}"))
                        .next(format!("the files are at {hub}/{repo}/tree/{revision}")),
                }
            }
            Source::Civitai { version, .. } => said(Error::usage(what.clone()))
                .why(format!("Civitai has no model version {version}"))
                .next("copy modelVersionId=NUMBER from the address of the model's page; the model's own number is another one"),
            _ => said(Error::usage(what.clone())).next("correct the source, or remove it from models.files"),
        }),
        451 => Fault::Fatal(said(Error::failed(what.clone())).next("it is withheld for legal reasons; choose another source")),
        _ => Fault::Fatal(said(Error::failed(what.clone())).next("open the address in a browser to see what the server wants")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn fatal(source: &str, token: bool, status: u16, pairs: &[(&str, &str)]) -> Error {
        let source = Source::parse(source).expect("source");
        let asked = Asked { source: &source, hub: "https://huggingface.co", token, locked: false, signed: false };
        match judge(asked, status, &headers(pairs)) {
            Fault::Fatal(error) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        const HF: &str = "hf://black-forest-labs/FLUX.1-dev/flux1-dev.safetensors@main";
        type Case<'a> = (&'a str, bool, u16, &'a [(&'a str, &'a str)], Kind, &'a [&'a str]);
        let cases: [Case<'_>; 12] = [
            (
                HF,
                false,
                401,
                &[("x-error-code", "GatedRepo")],
                Kind::Access,
                &["https://huggingface.co/black-forest-labs/FLUX.1-dev", "HF_TOKEN"],
            ),
            (
                HF,
                true,
                403,
                &[("x-error-code", "GatedRepo")],
                Kind::Access,
                &["https://huggingface.co/black-forest-labs/FLUX.1-dev", "terms"],
            ),
            (HF, true, 403, &[], Kind::Access, &["gated"]),
            (
                HF,
                true,
                401,
                &[("x-error-message", "Invalid credentials in Authorization header")],
                Kind::Access,
                &["not valid", "settings/tokens"],
            ),
            (HF, false, 401, &[("x-error-code", "RepoNotFound")], Kind::Access, &["or it is private", "HF_TOKEN"]),
            (HF, true, 401, &[("x-error-code", "RepoNotFound")], Kind::Access, &["this token may not read it"]),
            (HF, false, 404, &[("x-error-code", "RevisionNotFound")], Kind::Usage, &["no revision main"]),
            (
                HF,
                false,
                404,
                &[("x-error-code", "EntryNotFound")],
                Kind::Usage,
                &["no such file at main", "/tree/main"],
            ),
            ("civitai:7", false, 401, &[], Kind::Access, &["CIVITAI_API_TOKEN"]),
            ("civitai:7", true, 403, &[], Kind::Access, &["new key"]),
            ("civitai:7", false, 404, &[], Kind::Usage, &["no model version 7", "modelVersionId"]),
            ("https://example.com/x", false, 418, &[], Kind::Failed, &["418", "browser"]),
        ];
        for (source, token, status, pairs, kind, words) in cases {
            let error = fatal(source, token, status, pairs);
            let text = format!("{error} -> {}", error.hint().unwrap_or_default());
            assert_eq!(error.kind(), kind, "{text}");
            for word in words {
                assert!(text.contains(word), "{status} {source}: {word:?} is not in {text}");
            }
        }
    }

    #[test]
    fn a_limit_says_how_long_it_lasts() {
        let seconds = |pairs: &[(&str, &str)]| patience(&headers(pairs)).map(|time| time.as_secs());
        assert_eq!(seconds(&[("retry-after", "7")]), Some(7));
        assert_eq!(seconds(&[("ratelimit", "\"resolvers\";r=0;t=42")]), Some(43));
        let date = ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT");
        assert_eq!(seconds(&[date, ("date", "Wed, 21 Oct 2026 07:27:30 GMT")]), Some(30));
        assert_eq!(seconds(&[date, ("date", "Wed, 21 Oct 2026 07:29:00 GMT")]), Some(0), "it is over");
        assert_eq!(seconds(&[date]), None);
        assert_eq!(seconds(&[("ratelimit", "\"api\";r=9;t=120, \"resolvers\";r=0;t=5")]), Some(6));
        assert_eq!(seconds(&[("ratelimit", "\"resolvers\";r=0;t=42"), ("retry-after", "7")]), Some(43));
        assert_eq!(seconds(&[]), None);
    }

    #[test]
    fn a_refusal_by_a_signed_address_asks_for_a_new_one() {
        let source = Source::parse("hf://a/b/x").expect("source");
        let asked = Asked { source: &source, hub: "https://huggingface.co", token: true, locked: false, signed: true };
        assert!(matches!(judge(asked, 403, &headers(&[])), Fault::Expired(403)));
        assert!(matches!(judge(asked, 416, &headers(&[])), Fault::Changed));
        assert!(matches!(judge(asked, 502, &headers(&[])), Fault::Broken(_)));
    }

    #[test]
    fn etags_lose_their_quotes() {
        assert_eq!((bare("\"abc\"").as_str(), bare("W/\"abc\"").as_str(), bare("abc").as_str()), ("abc", "abc", "abc"));
    }
}
