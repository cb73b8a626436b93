//! The rows of the table of rules.

use crate::rules::Rule;

const fn rule(id: &'static str, source: &'static str, text: &'static str) -> Rule {
    Rule { id, source, text }
}

pub const RULES: &[Rule] = &[
    rule(
        "ecr.immutable-tag",
        "ECR API Reference, PutImage: ImageTagAlreadyExistsException",
        "A tag of an immutable repository cannot be put on another image.",
    ),
    rule(
        "ecr.image-exists",
        "ECR API Reference, PutImage: ImageAlreadyExistsException",
        "The same manifest under the same tag is not put twice.",
    ),
    rule(
        "ecr.layers-exist",
        "ECR API Reference, PutImage: LayersNotFoundException",
        "Every layer and the configuration of an image are there before its manifest.",
    ),
    rule(
        "ecr.digest",
        "ECR API Reference, PutImage: ImageDigestDoesNotMatchException; OCI distribution specification, DIGEST_INVALID",
        "A manifest or layer has the digest it is pushed under.",
    ),
    rule(
        "ecr.repository-not-empty",
        "ECR API Reference, DeleteRepository: RepositoryNotEmptyException",
        "A repository with images is deleted only by force.",
    ),
    rule(
        "ecr.repository-exists",
        "ECR API Reference, CreateRepository: RepositoryAlreadyExistsException",
        "A repository name is taken once in a registry.",
    ),
    rule(
        "ecr.repository-unknown",
        "ECR API Reference, common: RepositoryNotFoundException; OCI distribution specification, NAME_UNKNOWN",
        "A push does not create a repository.",
    ),
    rule(
        "ecr.lifecycle-syntax",
        "ECR User Guide, Lifecycle policy properties",
        "A lifecycle policy has unique priorities, known properties, and `any` at the lowest priority only.",
    ),
    rule(
        "ecr.token",
        "ECR User Guide, Private registry authentication: user AWS, valid for 12 hours",
        "The registry answers only to a token it gave out less than 12 hours ago.",
    ),
    rule(
        "ecr.part-too-small",
        "ECR API Reference, UploadLayerPart; dotnet/sdk-container-builds#424",
        "Chunks of a layer but the last have at least 5 MiB.",
    ),
    rule(
        "ecr.patch-201",
        "aws/containers-roadmap#2831",
        "A chunk is answered with 201, and Range stays at the end of the first chunk.",
    ),
];
