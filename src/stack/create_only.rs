//! Which properties CloudFormation cannot change in place.

/// Top-level create-only properties of each resource type the templates use, sorted: `createOnlyProperties` of
/// the CloudFormation registry's schemas of us-east-1 as cfn-lint ships them. `tests/lint-templates` compares.
pub const CREATE_ONLY: &[(&str, &[&str])] = &[
    ("AWS::ApplicationAutoScaling::ScalableTarget", &["ResourceId", "ScalableDimension", "ServiceNamespace"]),
    (
        "AWS::ApplicationAutoScaling::ScalingPolicy",
        &["PolicyName", "ResourceId", "ScalableDimension", "ScalingTargetId", "ServiceNamespace"],
    ),
    ("AWS::ECR::Repository", &["EncryptionConfiguration", "RepositoryName"]),
    ("AWS::IAM::Role", &["Path", "RoleName"]),
    ("AWS::Lambda::Function", &["FunctionName", "PackageType", "TenancyConfig"]),
    (
        "AWS::Lambda::Permission",
        &[
            "Action",
            "EventSourceToken",
            "FunctionName",
            "FunctionUrlAuthType",
            "InvokedViaFunctionUrl",
            "Principal",
            "PrincipalOrgID",
            "SourceAccount",
            "SourceArn",
        ],
    ),
    ("AWS::Lambda::Url", &["Qualifier", "TargetFunctionArn"]),
    ("AWS::Logs::LogGroup", &["LogGroupName"]),
    ("AWS::S3::Bucket", &["BucketName", "BucketNamePrefix", "BucketNamespace"]),
    ("AWS::S3::BucketPolicy", &["Bucket"]),
    ("AWS::SageMaker::Endpoint", &["EndpointName"]),
    (
        "AWS::SageMaker::EndpointConfig",
        &[
            "AsyncInferenceConfig",
            "DataCaptureConfig",
            "EnableNetworkIsolation",
            "EndpointConfigName",
            "ExecutionRoleArn",
            "ExplainerConfig",
            "KmsKeyId",
            "MetricsConfig",
            "ProductionVariants",
            "ShadowProductionVariants",
            "VpcConfig",
        ],
    ),
    (
        "AWS::SageMaker::Model",
        &[
            "Containers",
            "EnableNetworkIsolation",
            "ExecutionRoleArn",
            "InferenceExecutionConfig",
            "ModelName",
            "PrimaryContainer",
            "VpcConfig",
        ],
    ),
];

/// Whether a change of this property replaces the resource. Of types not in the table nothing is known, so
/// nothing is claimed.
pub(super) fn is_create_only(kind: &str, property: &str) -> bool {
    CREATE_ONLY.iter().any(|(k, properties)| *k == kind && properties.contains(&property))
}

/// The create-only properties of a type.
pub(super) fn of(kind: &str) -> &'static [&'static str] {
    CREATE_ONLY.iter().find(|(k, _)| *k == kind).map_or(&[], |(_, properties)| properties)
}
