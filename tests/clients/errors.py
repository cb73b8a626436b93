"""What boto3 makes of the sandbox's refusals: codes, exception classes, statuses, and which of them it repeats.

Arguments: digest of a Docker image and of an OCI image in the repository `errors`.
"""

import json
import os
import sys
import urllib.request

import boto3
from botocore.exceptions import ClientError, ParamValidationError, WaiterError
from botocore.retries.standard import ThrottledRetryableChecker

from common import ACCOUNT, REGION, client, done, fail, refused, same, true

DOCKER, OCI = sys.argv[1:3]
HOST = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
BUCKET = "errors"

TOPIC = {
    "Parameters": {"Name": {"Type": "String", "AllowedPattern": "[a-z]+", "MaxLength": 20}},
    "Resources": {"Group": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": {"Ref": "Name"}}}},
}
WITH_ROLE = {
    "Resources": {
        "Role": {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "AssumeRolePolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Effect": "Allow",
                            "Principal": {"Service": "lambda.amazonaws.com"},
                            "Action": "sts:AssumeRole",
                        }
                    ],
                }
            },
        }
    }
}


def faults(*wanted):
    """Tells the sandbox what to break."""
    request = urllib.request.Request(
        os.environ["AWS_ENDPOINT_URL"] + "/_sandbox/faults", data=json.dumps(wanted).encode()
    )
    urllib.request.urlopen(request).close()


def named(value):
    return [{"ParameterKey": "Name", "ParameterValue": value}]


def cloudformation():
    stacks = client("cloudformation")
    body, role = json.dumps(TOPIC), json.dumps(WITH_ROLE)
    for what, call in [
        ("describe", lambda: stacks.describe_stacks(StackName="none")),
        ("events", lambda: stacks.describe_stack_events(StackName="none")),
        ("template", lambda: stacks.get_template(StackName="none")),
        ("update", lambda: stacks.update_stack(StackName="none", TemplateBody=body, Parameters=named("a"))),
    ]:
        refused(f"{what} of no stack", call, "ValidationError", "ClientError", r"does not exist|\[none\]", 400)
    same(
        "deleting no stack is no error",
        stacks.delete_stack(StackName="none")["ResponseMetadata"]["HTTPStatusCode"],
        200,
    )
    refused(
        "IAM without a capability",
        lambda: stacks.create_stack(StackName="role", TemplateBody=role),
        "InsufficientCapabilitiesException",
        "InsufficientCapabilitiesException",
        r"Requires capabilities : \[CAPABILITY_IAM\]",
        400,
    )
    refused(
        "a value that does not fit",
        lambda: stacks.create_stack(StackName="p", TemplateBody=body, Parameters=named("A1")),
        "ValidationError",
        message=r"Parameter Name failed to satisfy constraint: .*|Parameter 'Name' must match pattern \[a-z\]\+",
    )
    refused(
        "a value that is missing",
        lambda: stacks.create_stack(StackName="p", TemplateBody=body),
        "ValidationError",
        message=r"Parameters: \[Name\] must have values",
    )
    refused(
        "a value too many",
        lambda: stacks.create_stack(
            StackName="p", TemplateBody=role, Capabilities=["CAPABILITY_IAM"], Parameters=named("a")
        ),
        "ValidationError",
        message=r"Parameters: \[Name\] do not exist in the template",
    )
    refused(
        "a template that is none",
        lambda: stacks.validate_template(TemplateBody="not: [a"),
        "ValidationError",
        message="Template format error",
    )
    refused(
        "a reference to nothing",
        lambda: stacks.create_stack(
            StackName="p",
            TemplateBody=json.dumps(
                {"Resources": {"G": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": {"Ref": "Gone"}}}}}
            ),
        ),
        "ValidationError",
        message=r"Unresolved resource dependencies \[Gone\] in the Resources block of the template",
    )
    refused(
        "a body over 51,200 bytes",
        lambda: stacks.create_stack(StackName="p", TemplateBody="x" * 51201),
        "ValidationError",
        message="templateBody",
    )
    stacks.create_stack(StackName="topic", TemplateBody=body, Parameters=named("topic"))
    stacks.get_waiter("stack_create_complete").wait(StackName="topic")
    refused(
        "a name that is taken",
        lambda: stacks.create_stack(StackName="topic", TemplateBody=body, Parameters=named("topic")),
        "AlreadyExistsException",
        "AlreadyExistsException",
        r"Stack \[topic\] already exists",
        400,
    )
    refused(
        "no change set",
        lambda: stacks.describe_change_set(StackName="topic", ChangeSetName="none"),
        "ChangeSetNotFound",
        "ChangeSetNotFoundException",
        status=404,
    )
    refused(
        "an update without a change",
        lambda: stacks.update_stack(StackName="topic", TemplateBody=body, Parameters=named("topic")),
        "ValidationError",
        message="No updates are to be performed",
    )
    stacks.create_change_set(StackName="topic", ChangeSetName="same", TemplateBody=body, Parameters=named("topic"))
    try:
        stacks.get_waiter("change_set_create_complete").wait(StackName="topic", ChangeSetName="same")
        fail("a change set without a change was made")
    except WaiterError:
        shown = stacks.describe_change_set(StackName="topic", ChangeSetName="same")
        same("its status", shown["Status"], "FAILED")
        true(f"its reason: {shown['StatusReason']}", "didn't contain changes" in shown["StatusReason"])
    refused(
        "executing it",
        lambda: stacks.execute_change_set(StackName="topic", ChangeSetName="same"),
        "InvalidChangeSetStatus",
        "InvalidChangeSetStatusException",
        status=400,
    )
    # The name is taken, so the creation fails and is rolled back.
    stacks.create_stack(StackName="second", TemplateBody=body, Parameters=named("topic"))
    try:
        stacks.get_waiter("stack_create_complete").wait(StackName="second")
        fail("two log groups of one name were made")
    except WaiterError as error:
        true(f"the waiter sees the end: {error}", "terminal failure" in str(error))
    same(
        "a first creation that failed",
        stacks.describe_stacks(StackName="second")["Stacks"][0]["StackStatus"],
        "ROLLBACK_COMPLETE",
    )
    refused(
        "its update",
        lambda: stacks.update_stack(StackName="second", TemplateBody=body, Parameters=named("b")),
        "ValidationError",
        message=r"ROLLBACK_COMPLETE state and can ?not be updated",
    )
    stacks.update_termination_protection(StackName="topic", EnableTerminationProtection=True)
    refused(
        "deleting what is protected",
        lambda: stacks.delete_stack(StackName="topic"),
        "ValidationError",
        message="cannot be deleted while TerminationProtection is enabled",
    )


def sagemaker():
    iam, s3, service = client("iam"), client("s3"), client("sagemaker")
    role = iam.create_role(
        RoleName="errors",
        AssumeRolePolicyDocument=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
                ],
            }
        ),
    )["Role"]["Arn"]
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket=BUCKET, Key="model.tar.gz", Body=b"weights")
    refused(
        "a bucket with an object", lambda: s3.delete_bucket(Bucket=BUCKET), "BucketNotEmpty", "ClientError", status=409
    )

    def model(name, digest):
        return service.create_model(
            ModelName=name,
            ExecutionRoleArn=role,
            PrimaryContainer={"Image": f"{HOST}/errors@{digest}", "ModelDataUrl": f"s3://{BUCKET}/model.tar.gz"},
        )

    def config(name, kind="ml.g5.xlarge"):
        return service.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[
                {"VariantName": "AllTraffic", "ModelName": "m", "InstanceType": kind, "InitialInstanceCount": 1}
            ],
        )

    refused(
        "an OCI image",
        lambda: model("oci", OCI),
        "ValidationException",
        "ClientError",
        "Unsupported manifest media type application/vnd.oci.image.manifest.v1\\+json",
        400,
    )
    refused(
        "an image that is not there",
        lambda: model("none", "sha256:" + "0" * 64),
        "ValidationException",
        message="Requested image .* not found",
    )
    model("m", DOCKER)
    refused(
        "a model name that is taken",
        lambda: model("m", DOCKER),
        "ValidationException",
        message="already existing model",
    )
    config("one")
    config("two")
    service.create_endpoint(EndpointName="e", EndpointConfigName="one")
    refused(
        "an update while it is made",
        lambda: service.update_endpoint(EndpointName="e", EndpointConfigName="two"),
        "ValidationException",
        message="in-progress",
    )
    service.get_waiter("endpoint_in_service").wait(EndpointName="e")
    service.update_endpoint(EndpointName="e", EndpointConfigName="two")
    refused(
        "an update while it is updated",
        lambda: service.update_endpoint(EndpointName="e", EndpointConfigName="one"),
        "ValidationException",
        "ClientError",
        "Cannot update in-progress endpoint",
        400,
    )
    refused(
        "deleting its config",
        lambda: service.delete_endpoint_config(EndpointConfigName="two"),
        "ValidationException",
        status=400,
    )
    service.get_waiter("endpoint_in_service").wait(EndpointName="e")
    refused(
        "no endpoint",
        lambda: service.describe_endpoint(EndpointName="none"),
        "ValidationException",
        message="Could not find endpoint",
    )
    refused(
        "no model",
        lambda: service.describe_model(ModelName="none"),
        "ValidationException",
        message="Could not find model",
    )
    # Failing its health check, the endpoint ends as Failed, and the waiter says so.
    faults({"kind": "unhealthy", "endpoint": "sick"})
    service.create_endpoint(EndpointName="sick", EndpointConfigName="one")
    try:
        service.get_waiter("endpoint_in_service").wait(EndpointName="sick")
        fail("a sick endpoint came into service")
    except WaiterError as error:
        true("with a reason", "ping" in error.last_response["FailureReason"])
    for name in ("e", "sick"):
        service.delete_endpoint(EndpointName=name)
        service.get_waiter("endpoint_deleted").wait(EndpointName=name)


def others():
    ecr, logs, iam, functions = client("ecr"), client("logs"), client("iam"), client("lambda")
    autoscaling, quotas = client("application-autoscaling"), client("service-quotas")
    image = ecr.batch_get_image(repositoryName="errors", imageIds=[{"imageDigest": DOCKER}])["images"][0]
    other = ecr.batch_get_image(repositoryName="errors", imageIds=[{"imageDigest": OCI}])["images"][0]
    ecr.put_image_tag_mutability(repositoryName="errors", imageTagMutability="IMMUTABLE")
    ecr.put_image(repositoryName="errors", imageManifest=image["imageManifest"], imageTag="c-1")
    refused(
        "another image under an immutable tag",
        lambda: ecr.put_image(
            repositoryName="errors",
            imageManifest=other["imageManifest"],
            imageManifestMediaType=other["imageManifestMediaType"],
            imageTag="c-1",
        ),
        "ImageTagAlreadyExistsException",
        "ImageTagAlreadyExistsException",
        status=400,
    )
    refused(
        "the same image again",
        lambda: ecr.put_image(repositoryName="errors", imageManifest=image["imageManifest"], imageTag="c-1"),
        "ImageAlreadyExistsException",
        "ImageAlreadyExistsException",
        status=400,
    )
    refused(
        "a repository with images",
        lambda: ecr.delete_repository(repositoryName="errors"),
        "RepositoryNotEmptyException",
        "RepositoryNotEmptyException",
        status=400,
    )
    refused(
        "no repository",
        lambda: ecr.describe_images(repositoryName="none"),
        "RepositoryNotFoundException",
        "RepositoryNotFoundException",
        status=400,
    )
    refused(
        "a repository name that is taken",
        lambda: ecr.create_repository(repositoryName="errors"),
        "RepositoryAlreadyExistsException",
        "RepositoryAlreadyExistsException",
        status=400,
    )
    logs.create_log_group(logGroupName="errors")
    refused(
        "a log group twice",
        lambda: logs.create_log_group(logGroupName="errors"),
        "ResourceAlreadyExistsException",
        "ResourceAlreadyExistsException",
        status=400,
    )
    refused(
        "no log group",
        lambda: logs.filter_log_events(logGroupName="none"),
        "ResourceNotFoundException",
        "ResourceNotFoundException",
        status=400,
    )
    refused("no role", lambda: iam.get_role(RoleName="none"), "NoSuchEntity", "NoSuchEntityException", status=404)
    refused(
        "no function",
        lambda: functions.get_function(FunctionName="none"),
        "ResourceNotFoundException",
        "ResourceNotFoundException",
        "Function not found",
        404,
    )
    place = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "endpoint/none/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    refused(
        "no scalable target",
        lambda: autoscaling.deregister_scalable_target(**place),
        "ObjectNotFoundException",
        "ObjectNotFoundException",
        status=400,
    )
    refused(
        "a target without a variant",
        lambda: autoscaling.register_scalable_target(**place, MinCapacity=1, MaxCapacity=2),
        "ValidationException",
        "ValidationException",
        status=400,
    )
    refused(
        "no quota",
        lambda: quotas.get_service_quota(ServiceCode="sagemaker", QuotaCode="L-00000000"),
        "NoSuchResourceException",
        "NoSuchResourceException",
        status=400,
    )


def what_boto3_checks_first():
    """botocore refuses by itself what does not fit the model; told not to, it is the service that must."""
    try:
        client("sagemaker").create_endpoint_config(EndpointConfigName="x")
        fail("botocore let a missing member through")
    except ParamValidationError:
        pass
    unchecked = {"parameter_validation": False}
    for what, call, code in [
        (
            "a config without variants",
            lambda: client("sagemaker", **unchecked).create_endpoint_config(EndpointConfigName="x"),
            "ValidationException",
        ),
        (
            "a repository without a name",
            lambda: client("ecr", **unchecked).create_repository(),
            "InvalidParameterException",
        ),
        (
            "a retention without a group",
            lambda: client("logs", **unchecked).put_retention_policy(retentionInDays=30),
            "InvalidParameterException",
        ),
        (
            "a stack without a name",
            lambda: client("cloudformation", **unchecked).create_stack(TemplateBody=json.dumps(TOPIC)),
            "ValidationError",
        ),
    ]:
        refused(what, call, code, status=400)
    refused(
        "31 days",
        lambda: client("logs").put_retention_policy(logGroupName="errors", retentionInDays=31),
        "InvalidParameterException",
        status=400,
    )
    refused(
        "a name with a blank",
        lambda: client("sagemaker").describe_endpoint(EndpointName="a b"),
        "ValidationException",
        message="failed to satisfy constraint",
        status=400,
    )


def throttling():
    """Throttled twice, boto3 asks a third time by itself; without its retries the code is one that it knows."""
    known = ThrottledRetryableChecker._THROTTLED_ERROR_CODES
    for service, operation, call in [
        ("cloudformation", "DescribeStacks", lambda c: c.describe_stacks()),
        ("sagemaker", "ListEndpoints", lambda c: c.list_endpoints()),
        (
            "application-autoscaling",
            "DescribeScalableTargets",
            lambda c: c.describe_scalable_targets(ServiceNamespace="sagemaker"),
        ),
        ("ecr", "DescribeRepositories", lambda c: c.describe_repositories()),
        ("lambda", "ListFunctions", lambda c: c.list_functions()),
        ("logs", "DescribeLogGroups", lambda c: c.describe_log_groups()),
        ("iam", "ListRoles", lambda c: c.list_roles()),
        ("s3", "ListBuckets", lambda c: c.list_buckets()),
    ]:
        faults({"kind": "throttle", "service": service, "operation": operation, "times": 2})
        answer = call(client(service))
        same(f"attempts at {service} {operation}", answer["ResponseMetadata"]["RetryAttempts"], 2)
        faults({"kind": "throttle", "service": service, "operation": operation})
        try:
            call(client(service, retries=False))
            fail(f"{service} was not throttled")
        except ClientError as error:
            code = error.response["Error"]["Code"]
            true(f"boto3 repeats {code} of {service}", code in known)


def who_asks():
    """Keys that the sandbox does not know, or that stand for a session that ran out."""
    for key, query, plain, s3 in [
        ("AKIAWRONG", "InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId"),
        ("expired", "ExpiredToken", "ExpiredTokenException", "ExpiredToken"),
    ]:
        session = boto3.Session(aws_access_key_id=key, aws_secret_access_key="x")
        refused(f"{key} at STS", session.client("sts").get_caller_identity, query, status=403)
        refused(f"{key} at CloudFormation", session.client("cloudformation").describe_stacks, query, status=403)
        refused(f"{key} at SageMaker", session.client("sagemaker").list_models, plain, status=400)
        refused(f"{key} at ECR", session.client("ecr").describe_repositories, plain, status=400)
        refused(f"{key} at Lambda", session.client("lambda").list_functions, plain, status=403)
        refused(f"{key} at S3", session.client("s3").list_buckets, s3)


def main():
    cloudformation()
    sagemaker()
    others()
    what_boto3_checks_first()
    throttling()
    who_asks()
    done()


main()
