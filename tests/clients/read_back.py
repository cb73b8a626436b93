"""Reads back every resource of a deployed app, each through its own API, and compares it with what was asked for.

Arguments: the data of `up --output json`, the URL's auth type (NONE or AWS_IAM).
"""

import base64
import hashlib
import json
import sys

from common import ACCOUNT, REGION, client, done, fail, refused, same, true

UP = json.loads(sys.argv[1])
AUTH = sys.argv[2]
APP = "comfy"
BUCKET = f"{APP}-{ACCOUNT}-{REGION}"
NAME = f"{APP}-{UP['model']['version']}"
TAGS = {"project": "clients"}


def own_tags(tags, key="Key", value="Value"):
    """The tags without CloudFormation's own."""
    pairs = tags.items() if isinstance(tags, dict) else ((tag[key], tag[value]) for tag in tags)
    return {k: v for k, v in pairs if not k.startswith("aws:")}


def subset(what, got, want):
    for key, value in want.items():
        same(f"{what}.{key}", got.get(key), value)


def app_tags(what, tags, stack, logical):
    """The app's and the user's tags, and where CloudFormation sets its own, the right ones."""
    tags = (
        tags
        if isinstance(tags, dict)
        else {tag.get("Key", tag.get("key")): tag.get("Value", tag.get("value")) for tag in tags}
    )
    subset(f"tags of {what}", tags, TAGS)
    subset(f"tags of {what}", tags, {"aws:cloudformation:stack-name": stack, "aws:cloudformation:logical-id": logical})
    for key, value in tags.items():
        true(
            f"the tag {key} of {what} names no time and no tool version: {value}",
            "202" not in value or key.startswith("aws:"),
        )


def bucket():
    s3 = client("s3")
    owner = {"Bucket": BUCKET, "ExpectedBucketOwner": ACCOUNT}
    same("region", s3.get_bucket_location(**owner)["LocationConstraint"], REGION)
    same(
        "public access block",
        s3.get_public_access_block(**owner)["PublicAccessBlockConfiguration"],
        {"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": True, "RestrictPublicBuckets": True},
    )
    policy = json.loads(s3.get_bucket_policy(**owner)["Policy"])
    same(
        "bucket policy",
        policy["Statement"],
        [
            {
                "Sid": "TlsOnly",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    )
    rules = s3.get_bucket_encryption(**owner)["ServerSideEncryptionConfiguration"]["Rules"]
    same("encryption", [rule["ApplyServerSideEncryptionByDefault"] for rule in rules], [{"SSEAlgorithm": "AES256"}])
    same("versioning", s3.get_bucket_versioning(**owner)["Status"], "Enabled")
    lifecycle = {rule["ID"]: rule for rule in s3.get_bucket_lifecycle_configuration(**owner)["Rules"]}
    same(
        "lifecycle rules",
        sorted(lifecycle),
        ["abort-incomplete-uploads", "drop-expired-delete-markers", "expire-noncurrent-versions"],
    )
    same("all enabled", {rule["Status"] for rule in lifecycle.values()}, {"Enabled"})
    same("uploads", lifecycle["abort-incomplete-uploads"]["AbortIncompleteMultipartUpload"], {"DaysAfterInitiation": 7})
    same("versions", lifecycle["expire-noncurrent-versions"]["NoncurrentVersionExpiration"], {"NoncurrentDays": 7})
    same("markers", lifecycle["drop-expired-delete-markers"]["Expiration"], {"ExpiredObjectDeleteMarker": True})
    same(
        "ownership",
        s3.get_bucket_ownership_controls(**owner)["OwnershipControls"]["Rules"],
        [{"ObjectOwnership": "BucketOwnerEnforced"}],
    )
    app_tags("the bucket", s3.get_bucket_tagging(**owner)["TagSet"], f"{APP}-foundation", "DeploymentBucket")
    refused(
        "a foreign owner",
        lambda: s3.get_bucket_versioning(Bucket=BUCKET, ExpectedBucketOwner="210987654321"),
        "AccessDenied",
        status=403,
    )


def objects():
    """The artifacts under their keys, and the deployment record with its outcome."""
    s3 = client("s3")
    keys = {item["Key"]: item for item in s3.list_objects_v2(Bucket=BUCKET)["Contents"]}
    model = s3.head_object(Bucket=BUCKET, Key=UP["model"]["key"], ChecksumMode="ENABLED")
    same("model size", model["ContentLength"], UP["model"]["bytes"])
    same("model checksum", model["ChecksumCRC64NVME"], UP["model"]["crc64nvme"])
    same("model checksum type", model["ChecksumType"], "FULL_OBJECT")
    function = [key for key in keys if key.startswith("functions/")]
    same("function packages", len(function), 1)
    records = sorted(key for key in keys if key.startswith("deployments/"))
    same("records", records, [f"deployments/{APP}/000001.json", f"deployments/{APP}/000001.outcome.json"])
    record, outcome = (json.loads(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()) for key in records)
    subset("record", record, {"n": 1, "stack": APP, "verb": "up"})
    same("record.parameters.ModelVersion", record["parameters"]["ModelVersion"], UP["model"]["version"])
    template = client("cloudformation").get_template(StackName=APP, TemplateStage="Original")["TemplateBody"]
    true("the record holds a template", record["template"].startswith("AWSTemplateFormatVersion"))
    true("GetTemplate answers with a template", template)
    subset("outcome", outcome, {"state": "succeeded", "stack_status": "CREATE_COMPLETE", "reason": None})
    tokens = {
        event.get("ClientRequestToken")
        for event in client("cloudformation").describe_stack_events(StackName=APP)["StackEvents"]
    }
    true(f"the events carry the record's token {record['token']}: {tokens}", record["token"] in tokens)
    index = UP["model"]["key"].rsplit("/", 1)[0] + "/index.json"
    same("nothing else is in the bucket", sorted(keys), sorted([UP["model"]["key"], index, *function, *records]))
    return function[0]


def repository():
    ecr = client("ecr")
    found = ecr.describe_repositories(repositoryNames=[APP])["repositories"][0]
    subset(
        "repository",
        found,
        {
            "repositoryArn": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{APP}",
            "registryId": ACCOUNT,
            "imageTagMutability": "IMMUTABLE",
            "imageScanningConfiguration": {"scanOnPush": True},
        },
    )
    rules = json.loads(ecr.get_lifecycle_policy(repositoryName=APP)["lifecyclePolicyText"])["rules"]
    same(
        "lifecycle of the repository",
        [(rule["rulePriority"], rule["selection"]["tagStatus"]) for rule in rules],
        [(1, "tagged"), (2, "tagged"), (3, "untagged")],
    )
    app_tags(
        "the repository",
        ecr.list_tags_for_resource(resourceArn=found["repositoryArn"])["tags"],
        f"{APP}-foundation",
        "ImageRepository",
    )
    image = ecr.batch_get_image(repositoryName=APP, imageIds=[{"imageDigest": UP["image"]["digest"]}])["images"][0]
    same("manifest type", image["imageManifestMediaType"], "application/vnd.docker.distribution.manifest.v2+json")
    same(
        "digest of the manifest",
        "sha256:" + hashlib.sha256(image["imageManifest"].encode()).hexdigest(),
        UP["image"]["digest"],
    )


def stack_resources(name):
    cloudformation = client("cloudformation")
    resources = {}
    for page in cloudformation.get_paginator("list_stack_resources").paginate(StackName=name):
        for resource in page["StackResourceSummaries"]:
            resources[resource["LogicalResourceId"]] = resource
    same(f"statuses in {name}", {resource["ResourceStatus"] for resource in resources.values()}, {"CREATE_COMPLETE"})
    for logical in resources:
        detail = cloudformation.describe_stack_resource(StackName=name, LogicalResourceId=logical)
        same(
            f"physical id of {logical}",
            detail["StackResourceDetail"]["PhysicalResourceId"],
            resources[logical]["PhysicalResourceId"],
        )
    return resources


def stacks(function_key):
    cloudformation = client("cloudformation")
    found = cloudformation.describe_stacks(StackName=f"{APP}-foundation")["Stacks"][0]
    # A foundation that took an existing repository over was imported and created in one.
    true(f"foundation status {found['StackStatus']}", found["StackStatus"] in ("CREATE_COMPLETE", "IMPORT_COMPLETE"))
    outputs = {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}
    host = client("ecr").describe_repositories(repositoryNames=[APP])["repositories"][0]["repositoryUri"]
    same(
        "foundation outputs",
        outputs,
        {
            "BucketName": BUCKET,
            "RepositoryName": APP,
            "RepositoryUri": host,
            "RepositoryArn": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{APP}",
        },
    )

    found = cloudformation.describe_stacks(StackName=APP)["Stacks"][0]
    same("service status", found["StackStatus"], "CREATE_COMPLETE")
    subset("tags of the stack", own_tags(found["Tags"]), TAGS)
    true(f"capabilities {found['Capabilities']}", "CAPABILITY_IAM" in found["Capabilities"])
    parameters = {item["ParameterKey"]: item["ParameterValue"] for item in found["Parameters"]}
    subset(
        "parameters",
        parameters,
        {
            "AppName": APP,
            "DeploymentBucket": BUCKET,
            "ModelVersion": UP["model"]["version"],
            "ModelDataS3Key": UP["model"]["key"],
            "ModelEcrImage": f"{APP}@{UP['image']['digest']}",
            "SageMakerInstanceType": "ml.g5.xlarge",
            "SageMakerAutoScaling": "true",
            "MinCapacity": "1",
            "MaxCapacity": "4",
            "LambdaPackageS3Key": function_key,
            "LambdaUrlAuthType": AUTH,
            "LambdaUrlMode": "stream",
        },
    )
    outputs = {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}
    resources = stack_resources(APP)
    url = client("lambda").get_function_url_config(FunctionName=f"{APP}-lambda")["FunctionUrl"]
    same(
        "service outputs",
        outputs,
        {
            "ComfyUIEndpoint": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{APP}",
            "EndpointName": APP,
            "EndpointConfigName": NAME,
            "ModelName": NAME,
            "ComfyUIFunctionUrl": url,
            "FunctionName": f"{APP}-lambda",
            "FunctionLogGroup": resources["ComfyUIFunctionLogGroup"]["PhysicalResourceId"],
        },
    )
    permissions = {"ComfyUIFunctionUrlPermission", "ComfyUIFunctionInvokePermission"}
    same("permissions in the stack", permissions & set(resources), permissions if AUTH == "NONE" else set())
    return resources


def policies(iam, role):
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    return {name: iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]["Statement"] for name in names}


def roles(resources):
    iam = client("iam")
    role = resources["ComfyUIModelExecutionRole"]["PhysicalResourceId"]
    found = iam.get_role(RoleName=role)["Role"]
    true(f"{role} has a made-up name", role.startswith(f"{APP}-ComfyUIModelExecutionRole-"))
    same("path", found["Path"], "/")
    same(
        "who assumes the execution role",
        found["AssumeRolePolicyDocument"]["Statement"],
        [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    )
    app_tags("the execution role", iam.list_role_tags(RoleName=role)["Tags"], APP, "ComfyUIModelExecutionRole")
    same("managed policies", iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"], [])
    group = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/sagemaker/Endpoints/{APP}"
    same(
        "policies of the execution role",
        policies(iam, role),
        {
            "image": [
                {"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"},
                {
                    "Effect": "Allow",
                    "Action": ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
                    "Resource": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{APP}",
                },
            ],
            "model": [
                {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/models/*"},
                {
                    "Effect": "Allow",
                    "Action": "s3:ListBucket",
                    "Resource": f"arn:aws:s3:::{BUCKET}",
                    "Condition": {"StringLike": {"s3:prefix": "models/*"}},
                },
            ],
            "logs-and-metrics": [
                {
                    "Effect": "Allow",
                    "Action": [
                        "logs:CreateLogGroup",
                        "logs:CreateLogStream",
                        "logs:DescribeLogStreams",
                        "logs:PutLogEvents",
                    ],
                    "Resource": [group, f"{group}:*"],
                },
                {
                    "Effect": "Allow",
                    "Action": "cloudwatch:PutMetricData",
                    "Resource": "*",
                    "Condition": {"StringLike": {"cloudwatch:namespace": ["AWS/SageMaker*", "/aws/sagemaker/*"]}},
                },
                {"Effect": "Allow", "Action": "cloudwatch:DescribeAlarms", "Resource": "*"},
            ],
        },
    )

    function_role = resources["ComfyUIFunctionRole"]["PhysicalResourceId"]
    document = iam.get_role(RoleName=function_role)["Role"]["AssumeRolePolicyDocument"]
    same("who assumes the function role", document["Statement"][0]["Principal"], {"Service": "lambda.amazonaws.com"})
    group = resources["ComfyUIFunctionLogGroup"]["PhysicalResourceId"]
    same(
        "policies of the function role",
        policies(iam, function_role),
        {
            "endpoint": [
                {
                    "Effect": "Allow",
                    "Action": "sagemaker:InvokeEndpoint",
                    "Resource": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{APP}",
                }
            ],
            "logs": [
                {
                    "Effect": "Allow",
                    "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
                    "Resource": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}:*",
                }
            ],
        },
    )
    return f"arn:aws:iam::{ACCOUNT}:role/{role}", f"arn:aws:iam::{ACCOUNT}:role/{function_role}"


def endpoint(execution_role):
    sagemaker = client("sagemaker")
    model = sagemaker.describe_model(ModelName=NAME)
    same("execution role", model["ExecutionRoleArn"], execution_role)
    same("isolation", model["EnableNetworkIsolation"], True)
    container = model["PrimaryContainer"]
    true(f"image {container['Image']}", container["Image"].endswith(f"/{APP}@{UP['image']['digest']}"))
    same("model data", container["ModelDataUrl"], f"s3://{BUCKET}/{UP['model']['key']}")
    app_tags("the model", sagemaker.list_tags(ResourceArn=model["ModelArn"])["Tags"], APP, "ComfyUIModel")

    config = sagemaker.describe_endpoint_config(EndpointConfigName=NAME)
    same("variants", len(config["ProductionVariants"]), 1)
    subset(
        "variant",
        config["ProductionVariants"][0],
        {
            "VariantName": "AllTraffic",
            "ModelName": NAME,
            "InstanceType": "ml.g5.xlarge",
            "InitialInstanceCount": 1,
            "InitialVariantWeight": 1.0,
            "ModelDataDownloadTimeoutInSeconds": 1200,
            "ContainerStartupHealthCheckTimeoutInSeconds": 600,
            "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
        },
    )
    true("no volume size was asked for", "VolumeSizeInGB" not in config["ProductionVariants"][0])
    app_tags(
        "the config", sagemaker.list_tags(ResourceArn=config["EndpointConfigArn"])["Tags"], APP, "ComfyUIEndpointConfig"
    )

    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=APP, WaiterConfig={"Delay": 1, "MaxAttempts": 2})
    live = sagemaker.describe_endpoint(EndpointName=APP)
    subset(
        "endpoint",
        live,
        {"EndpointArn": UP["endpoint"]["arn"], "EndpointConfigName": NAME, "EndpointStatus": "InService"},
    )
    variant = live["ProductionVariants"][0]
    subset("live variant", variant, {"VariantName": "AllTraffic", "CurrentWeight": 1.0})
    image = variant["DeployedImages"][0]
    true(f"resolved image {image['ResolvedImage']}", image["ResolvedImage"].endswith(UP["image"]["digest"]))
    app_tags("the endpoint", sagemaker.list_tags(ResourceArn=live["EndpointArn"])["Tags"], APP, "ComfyUIEndpoint")


def scaling():
    autoscaling = client("application-autoscaling")
    place = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{APP}/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    targets = autoscaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    same("targets", len(targets), 1)
    subset("target", targets[0], {**place, "MinCapacity": 1, "MaxCapacity": 4})
    true("the target has a role", targets[0]["RoleARN"].startswith(f"arn:aws:iam::{ACCOUNT}:role/"))
    rules = autoscaling.describe_scaling_policies(**place)["ScalingPolicies"]
    same("policies", [rule["PolicyName"] for rule in rules], ["concurrent-requests"])
    subset("policy", rules[0], {**place, "PolicyType": "TargetTrackingScaling"})
    subset(
        "policy",
        rules[0]["TargetTrackingScalingPolicyConfiguration"],
        {
            "TargetValue": 1.0,
            "ScaleOutCooldown": 60,
            "ScaleInCooldown": 600,
            "PredefinedMetricSpecification": {
                "PredefinedMetricType": "SageMakerVariantConcurrentRequestsPerModelHighResolution"
            },
        },
    )
    actions = {
        item["ScheduledActionName"]: item
        for item in autoscaling.describe_scheduled_actions(**place)["ScheduledActions"]
    }
    same("schedules", sorted(actions), ["morning", "night"])
    subset(
        "night",
        actions["night"],
        {"Schedule": "cron(0 20 * * ? *)", "Timezone": "Europe/Berlin", "ScalableTargetAction": {"MaxCapacity": 1}},
    )
    subset(
        "morning",
        actions["morning"],
        {
            "Schedule": "cron(0 7 * * ? *)",
            "Timezone": "Europe/Berlin",
            "ScalableTargetAction": {"MinCapacity": 2, "MaxCapacity": 4},
        },
    )


def function(key, role, resources):
    functions = client("lambda")
    name = f"{APP}-lambda"
    functions.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 5})
    found = functions.get_function(FunctionName=name)
    zip_file = client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
    group = resources["ComfyUIFunctionLogGroup"]["PhysicalResourceId"]
    subset(
        "function",
        found["Configuration"],
        {
            "FunctionArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}",
            "Runtime": "provided.al2023",
            "Handler": "bootstrap",
            "Role": role,
            "MemorySize": 256,
            "Timeout": 90,
            "State": "Active",
            "LastUpdateStatus": "Successful",
            "PackageType": "Zip",
            "CodeSize": len(zip_file),
            "CodeSha256": base64.b64encode(hashlib.sha256(zip_file).digest()).decode(),
            "Environment": {"Variables": {"ENDPOINT_NAME": APP, "COMFY_URL_MODE": "stream"}},
        },
    )
    subset("logging", found["Configuration"]["LoggingConfig"], {"LogFormat": "Text", "LogGroup": group})
    true("one architecture", found["Configuration"]["Architectures"] in (["x86_64"], ["arm64"]))
    app_tags("the function", found["Tags"], APP, "ComfyUIFunction")
    url = functions.get_function_url_config(FunctionName=name)
    subset(
        "URL", url, {"AuthType": AUTH, "InvokeMode": "RESPONSE_STREAM", "FunctionArn": found["Configuration"]["FunctionArn"]}
    )
    same("URL in the result", UP["function"]["url"], url["FunctionUrl"])
    if AUTH == "NONE":
        statements = json.loads(functions.get_policy(FunctionName=name)["Policy"])["Statement"]
        by_action = {item["Action"]: item for item in statements}
        same("actions of everybody", sorted(by_action), ["lambda:InvokeFunction", "lambda:InvokeFunctionUrl"])
        for action, condition in [
            ("lambda:InvokeFunctionUrl", {"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}}),
            ("lambda:InvokeFunction", {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}),
        ]:
            subset(
                action,
                by_action[action],
                {
                    "Effect": "Allow",
                    "Principal": "*",
                    "Condition": condition,
                    "Resource": found["Configuration"]["FunctionArn"],
                },
            )
    else:
        refused(
            "no resource policy",
            lambda: functions.get_policy(FunctionName=name),
            "ResourceNotFoundException",
            "ResourceNotFoundException",
            status=404,
        )

    logs = client("logs")
    groups = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    same("log groups", [item["logGroupName"] for item in groups], [group])
    same("retention", groups[0]["retentionInDays"], 30)
    # SageMaker makes the endpoint's group; the tool sets its retention.
    groups = logs.describe_log_groups(logGroupNamePrefix=f"/aws/sagemaker/Endpoints/{APP}")["logGroups"]
    same(
        "the endpoint's log group",
        [(item["logGroupName"], item.get("retentionInDays")) for item in groups],
        [(f"/aws/sagemaker/Endpoints/{APP}", 30)],
    )


def main():
    same("account", client("sts").get_caller_identity()["Account"], ACCOUNT)
    bucket()
    key = objects()
    repository()
    stack_resources(f"{APP}-foundation")
    resources = stacks(key)
    execution_role, function_role = roles(resources)
    endpoint(execution_role)
    scaling()
    function(key, function_role, resources)
    same(
        "every type was read",
        {item["ResourceType"] for item in resources.values()}
        - {
            "AWS::IAM::Role",
            "AWS::SageMaker::Model",
            "AWS::SageMaker::EndpointConfig",
            "AWS::SageMaker::Endpoint",
            "AWS::ApplicationAutoScaling::ScalableTarget",
            "AWS::ApplicationAutoScaling::ScalingPolicy",
            "AWS::Lambda::Function",
            "AWS::Lambda::Url",
            "AWS::Lambda::Permission",
            "AWS::Logs::LogGroup",
        },
        set(),
    )
    if not UP["changed"]:
        fail("up changed nothing")
    done()


main()
