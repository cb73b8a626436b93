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
];
