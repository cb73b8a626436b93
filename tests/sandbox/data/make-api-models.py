#!/usr/bin/env python3
"""Makes api-models.json: what the AWS API models say about the input of each operation that the sandbox implements.

Only structure is kept: members, required members, types, patterns, lengths and ranges, enumerations. Run it with a
Python that has botocore: `python3 make-api-models.py > api-models.json`.
"""

import json

import botocore
import botocore.loaders

# Signing name: (directory of the model, operations).
SERVICES = {
    "application-autoscaling": ("application-autoscaling", """
        DeleteScalingPolicy DeleteScheduledAction DeregisterScalableTarget DescribeScalableTargets
        DescribeScalingActivities DescribeScalingPolicies DescribeScheduledActions ListTagsForResource PutScalingPolicy
        PutScheduledAction RegisterScalableTarget TagResource UntagResource"""),
    "cloudformation": ("cloudformation", """
        CancelUpdateStack ContinueUpdateRollback CreateChangeSet CreateStack DeleteChangeSet DeleteStack
        DescribeChangeSet DescribeEvents DescribeStackEvents DescribeStackResource DescribeStackResources
        DescribeStacks ExecuteChangeSet GetStackPolicy GetTemplate GetTemplateSummary ListChangeSets ListExports
        ListStackResources ListStacks RollbackStack SetStackPolicy UpdateStack UpdateTerminationProtection
        ValidateTemplate"""),
    "ecr": ("ecr", """
        BatchCheckLayerAvailability BatchDeleteImage BatchGetImage CompleteLayerUpload CreateRepository
        DeleteLifecyclePolicy DeleteRepository DeleteRepositoryPolicy DescribeImages DescribeRepositories
        GetAuthorizationToken GetDownloadUrlForLayer GetLifecyclePolicy GetRepositoryPolicy InitiateLayerUpload
        ListImages ListTagsForResource PutImage PutImageScanningConfiguration PutImageTagMutability PutLifecyclePolicy
        SetRepositoryPolicy TagResource UntagResource UploadLayerPart"""),
    "iam": ("iam", """
        AttachRolePolicy CreateRole DeleteRole DeleteRolePermissionsBoundary DeleteRolePolicy DetachRolePolicy GetRole
        GetRolePolicy ListAttachedRolePolicies ListInstanceProfilesForRole ListRolePolicies ListRoleTags ListRoles
        PutRolePermissionsBoundary PutRolePolicy TagRole UntagRole UpdateAssumeRolePolicy UpdateRole"""),
    "lambda": ("lambda", """
        AddPermission CreateFunction CreateFunctionUrlConfig DeleteFunction DeleteFunctionConcurrency
        DeleteFunctionUrlConfig GetFunction GetFunctionConcurrency GetFunctionConfiguration GetFunctionUrlConfig
        GetPolicy ListFunctions ListTags PutFunctionConcurrency RemovePermission TagResource UntagResource
        UpdateFunctionCode UpdateFunctionConfiguration UpdateFunctionUrlConfig"""),
    "logs": ("logs", """
        CreateLogGroup DeleteLogGroup DeleteRetentionPolicy DescribeLogGroups DescribeLogStreams FilterLogEvents
        GetLogEvents ListTagsForResource PutRetentionPolicy TagResource UntagResource"""),
    "sagemaker": ("sagemaker", """
        AddTags CreateEndpoint CreateEndpointConfig CreateModel DeleteEndpoint DeleteEndpointConfig DeleteModel
        DeleteTags DescribeEndpoint DescribeEndpointConfig DescribeModel ListEndpointConfigs ListEndpoints ListModels
        ListTags UpdateEndpoint UpdateEndpointWeightsAndCapacities"""),
    "servicequotas": ("service-quotas", """
        GetAWSDefaultServiceQuota GetServiceQuota ListAWSDefaultServiceQuotas ListServiceQuotas"""),
    "sts": ("sts", "AssumeRole GetCallerIdentity"),
}


def compact(shape):
    """The structure of one shape."""
    kind = shape["type"]
    out = {"t": kind}
    if kind == "structure":
        out["m"] = {name: member["shape"] for name, member in sorted(shape.get("members", {}).items())}
        if shape.get("required"):
            out["r"] = sorted(shape["required"])
    elif kind == "list":
        out["e"] = shape["member"]["shape"]
    elif kind == "map":
        out["k"], out["v"] = shape["key"]["shape"], shape["value"]["shape"]
    for long, short in (("min", "min"), ("max", "max"), ("pattern", "p"), ("enum", "enum")):
        if long in shape:
            out[short] = shape[long]
    return out


def reachable(shapes, name, found):
    """Adds a shape and all it holds to `found`."""
    if name in found:
        return
    found[name] = compact(shapes[name])
    shape = found[name]
    for child in [*shape.get("m", {}).values(), shape.get("e"), shape.get("k"), shape.get("v")]:
        if child:
            reachable(shapes, child, found)


def main():
    loader = botocore.loaders.create_loader()
    out = {}
    for signing_name, (directory, operations) in SERVICES.items():
        model = loader.load_service_model(directory, "service-2")
        found, inputs = {}, {}
        for operation in sorted(operations.split()):
            shape = model["operations"][operation].get("input", {}).get("shape")
            inputs[operation] = shape
            if shape:
                reachable(model["shapes"], shape, found)
        out[signing_name] = {"inputs": inputs, "shapes": dict(sorted(found.items()))}
    # One shape a line: small, and a change shows as such.
    print("{")
    print(f'"botocore":{json.dumps(botocore.__version__)},')
    print('"services":{')
    for i, (name, service) in enumerate(sorted(out.items())):
        print(f'{json.dumps(name)}:{{"inputs":{json.dumps(service["inputs"], separators=(",", ":"))},"shapes":{{')
        lines = [f"{json.dumps(k)}:{json.dumps(v, separators=(',', ':'))}" for k, v in service["shapes"].items()]
        print(",\n".join(lines))
        print("}}" + ("," if i < len(out) - 1 else ""))
    print("}}")


if __name__ == "__main__":
    main()
