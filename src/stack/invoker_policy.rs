//! What a caller of an AWS_IAM Function URL must be allowed to do.

use serde_json::{Value, json};

/// The identity policy that lets a principal of the same account call the Function URL. Both actions are
/// needed since October 2025 (Lambda developer guide, "Control access to Lambda function URLs"); the
/// condition keeps the second from allowing calls around the URL.
pub fn invoker_policy(function_arn: &str) -> Value {
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "lambda:InvokeFunctionUrl",
                "Resource": function_arn,
                "Condition": { "StringEquals": { "lambda:FunctionUrlAuthType": "AWS_IAM" } }
            },
            {
                "Effect": "Allow",
                "Action": "lambda:InvokeFunction",
                "Resource": function_arn,
                "Condition": { "Bool": { "lambda:InvokedViaFunctionUrl": "true" } }
            }
        ]
    })
}
