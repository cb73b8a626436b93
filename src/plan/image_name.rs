//! `host/repository:tag` taken apart.

/// The name of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageName<'a> {
    /// The registry; empty for ECR of this account and region.
    pub host: &'a str,
    /// The repository.
    pub repository: &'a str,
    /// A tag or `sha256:...`; `latest` when neither is named.
    pub reference: &'a str,
}

impl<'a> ImageName<'a> {
    /// Takes it apart. The first component is a host if it could not be a repository's, as docker has it.
    pub fn parse(uri: &'a str) -> Self {
        let (host, rest) = match uri.split_once('/') {
            Some((host, rest)) if host.contains('.') || host.contains(':') || host == "localhost" => (host, rest),
            _ => ("", uri),
        };
        let (name, digest) = match rest.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (rest, None),
        };
        // A digest decides even if a tag is named beside it.
        let (repository, tag) = match name.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (name, None),
        };
        ImageName { host, repository, reference: digest.or(tag).unwrap_or("latest") }
    }

    /// The same image by digest.
    pub fn at(&self, digest: &str) -> String {
        let slash = if self.host.is_empty() { "" } else { "/" };
        format!("{}{slash}{}@{digest}", self.host, self.repository)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_apart() {
        let parts = |uri| {
            let n = ImageName::parse(uri);
            (n.host.to_owned(), n.repository.to_owned(), n.reference.to_owned())
        };
        let is = |h: &str, r: &str, t: &str| (h.to_owned(), r.to_owned(), t.to_owned());
        assert_eq!(parts("comfy"), is("", "comfy", "latest"));
        assert_eq!(parts("team/comfy:v1"), is("", "team/comfy", "v1"));
        assert_eq!(parts("comfy@sha256:ab"), is("", "comfy", "sha256:ab"));
        assert_eq!(parts("comfy:v1@sha256:ab"), is("", "comfy", "sha256:ab"));
        assert_eq!(parts("localhost/comfy:v1"), is("localhost", "comfy", "v1"));
        assert_eq!(parts("127.0.0.1:4599/team/comfy"), is("127.0.0.1:4599", "team/comfy", "latest"));
        let host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
        assert_eq!(parts(&format!("{host}/comfy:v1")), is(host, "comfy", "v1"));
        assert_eq!(ImageName::parse("h.io/comfy:v1").at("sha256:ab"), "h.io/comfy@sha256:ab");
        assert_eq!(ImageName::parse("comfy:v1").at("sha256:ab"), "comfy@sha256:ab");
    }
}
