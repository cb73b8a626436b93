#!/usr/bin/env python3
"""Extracts cfn-schemas.json from the resource schemas that cfn-lint bundles (AWS's own, us-east-1).

Usage, with cfn-lint installed for the running interpreter:

    python3 make-cfn-schemas.py > cfn-schemas.json

Only what decides how CloudFormation accepts and changes a resource is kept: names, types, required members,
enumerations, and the create-only, read-only and identifying properties. Descriptions, patterns and the
linter's own additions are dropped. Output is minified and sorted, so that a newer release shows as a diff.
"""

import json
import pathlib
import sys

import cfnlint

TYPES = [
    "AWS::ApplicationAutoScaling::ScalableTarget",
    "AWS::ApplicationAutoScaling::ScalingPolicy",
    "AWS::ECR::Repository",
    "AWS::IAM::Policy",
    "AWS::IAM::Role",
    "AWS::Lambda::Function",
    "AWS::Lambda::Permission",
    "AWS::Lambda::Url",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
    "AWS::S3::BucketPolicy",
    "AWS::SageMaker::Endpoint",
    "AWS::SageMaker::EndpointConfig",
    "AWS::SageMaker::Model",
]

# Keywords of a property's schema that say what values fit.
KEYWORDS = {
    "$ref", "additionalProperties", "enum", "items", "maxItems", "maxLength", "maximum", "minItems", "minLength",
    "minimum", "patternProperties", "properties", "required", "type",
}
ALTERNATIVES = ("anyOf", "oneOf")
TOP = ("createOnlyProperties", "readOnlyProperties", "conditionalCreateOnlyProperties", "writeOnlyProperties",
       "primaryIdentifier")


def trim(schema):
    """The schema with the kept keywords only, all the way down."""
    kept = {}
    for key, value in schema.items():
        if key in ("properties", "patternProperties"):
            kept[key] = {name: trim(inner) for name, inner in value.items()}
        elif key == "items":
            kept[key] = trim(value)
        elif key == "additionalProperties" and isinstance(value, dict):
            kept[key] = trim(value)
        elif key in KEYWORDS:
            kept[key] = value
        elif key in ALTERNATIVES:
            inner = [trim(each) for each in value]
            # Alternatives that only say which members go together are the service's business.
            if all("type" in each or "$ref" in each or "properties" in each for each in inner):
                kept[key] = inner
    return kept


def references(schema, found):
    """The names of the definitions that a schema needs."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):
                found.add(value.rsplit("/", 1)[1])
            references(value, found)
    elif isinstance(schema, list):
        for each in schema:
            references(each, found)


def main():
    base = pathlib.Path(cfnlint.__file__).parent / "data" / "schemas"
    names = json.loads((base / "providers" / "us-east-1.json").read_text())
    result = {}
    for type_name in TYPES:
        full = json.loads((base / "resources" / f"{names[type_name]}.json").read_text())
        out = {"properties": {name: trim(each) for name, each in full["properties"].items()}}
        out["required"] = full.get("required", [])
        for key in TOP:
            out[key] = sorted(path.removeprefix("/properties/") for path in full.get(key, []))
        out["tagProperty"] = "Tags" if full.get("tagging", {}).get("taggable", "Tags" in full["properties"]) and \
            "Tags" in full["properties"] else ""
        needed, definitions = set(), {}
        references(out["properties"], needed)
        while needed - definitions.keys():
            for name in sorted(needed - definitions.keys()):
                definitions[name] = trim(full["definitions"][name])
                references(definitions[name], needed)
        out["definitions"] = definitions
        result[type_name] = out
    json.dump(result, sys.stdout, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
