//! What Lambda refuses.

use crate::rules::Rule;

/// The rows.
pub const RULES: &[Rule] = &[
    Rule {
        id: "lambda.name-taken",
        source: "API model: CreateFunction, ResourceConflictException",
        text: "A function whose name is taken cannot be created.",
    },
    Rule {
        id: "lambda.role",
        source: "API model: CreateFunction, InvalidParameterValueException",
        text: "The role exists and lets lambda.amazonaws.com assume it.",
    },
    Rule {
        id: "lambda.code-exists",
        source: "API model: FunctionCode, InvalidParameterValueException",
        text: "The zip file must be in S3 when the function is created or its code changed, and be a zip file.",
    },
    Rule {
        id: "lambda.zip-needs-runtime",
        source: "API model: CreateFunction.Runtime, Handler",
        text: "A function from a zip file has a runtime and a handler.",
    },
    Rule {
        id: "lambda.update-in-progress",
        source: "AWS doc: Lambda function states, ResourceConflictException",
        text: "A function is not changed while it is Pending or another update goes on.",
    },
    Rule {
        id: "lambda.reserved-environment",
        source: "AWS doc: Using Lambda environment variables, reserved",
        text: "Reserved environment variables cannot be set, and all of them together have 4 KB.",
    },
    Rule {
        id: "lambda.unreserved-concurrency",
        source: "AWS doc: Lambda quotas",
        text: "100 of the account's concurrent executions stay unreserved.",
    },
    Rule {
        id: "lambda.one-url",
        source: "API model: CreateFunctionUrlConfig, ResourceConflictException",
        text: "A function has at most one URL for its unpublished version.",
    },
    Rule {
        id: "lambda.statement-taken",
        source: "API model: AddPermission, ResourceConflictException",
        text: "A statement id is unique in the function's policy.",
    },
    Rule {
        id: "lambda.url-auth-action",
        source: "API model: AddPermission.FunctionUrlAuthType, InvokedViaFunctionUrl",
        text: "FunctionUrlAuthType goes with lambda:InvokeFunctionUrl, InvokedViaFunctionUrl with lambda:InvokeFunction.",
    },
    Rule {
        id: "lambda.invoke-pending",
        source: "AWS doc: Lambda function states, ResourceConflictException",
        text: "A function that is Pending cannot be invoked.",
    },
    Rule {
        id: "lambda.reserved-concurrency",
        source: "API model: TooManyRequestsException, ThrottleReason",
        text: "Executions over the reserved concurrency are refused with 429.",
    },
    Rule {
        id: "lambda.payload-size",
        source: "API model: InvocationRequest.Payload; AWS doc: Lambda quotas",
        text: "A request has 6 MB, an asynchronous one 1 MB, a buffered answer 6 MB and a streamed one 200 MB.",
    },
    Rule {
        id: "lambda.architecture",
        source: "aws/aws-lambda-go#554, awslabs/swift-aws-lambda-runtime#541",
        text: "A bootstrap for another architecture is Runtime.InvalidEntrypoint: exec format error.",
    },
    Rule {
        id: "lambda.url-signature",
        source: "AWS doc: Invoking Lambda function URLs; aws/aws-sdk-go#859; CloudFront doc: Lambda function URL origin",
        text: "With AWS_IAM a URL takes SigV4 signatures of the whole request that are at most five minutes old.",
    },
    Rule {
        id: "lambda.url-both-actions",
        source: "AWS doc: Control access to Lambda function URLs; awsdocs/aws-lambda-developer-guide#494",
        text: "Callers of a URL need lambda:InvokeFunctionUrl and lambda:InvokeFunction, public ones by the resource policy.",
    },
];
