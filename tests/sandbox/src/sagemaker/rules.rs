//! What SageMaker refuses.

use crate::rules::Rule;

/// The rows.
pub const RULES: &[Rule] = &[
    Rule {
        id: "sagemaker.name-taken",
        source: "philschmid/terraform-aws-sagemaker-huggingface#6; the same text for models and endpoints",
        text: "A model, endpoint config or endpoint whose name is taken cannot be created.",
    },
    Rule {
        id: "sagemaker.role",
        source: "API model: CreateModel, ExecutionRoleArn",
        text: "The execution role exists and lets sagemaker.amazonaws.com assume it.",
    },
    Rule {
        id: "sagemaker.image-exists",
        source: "API model: ContainerDefinition.Image",
        text: "An image in this account's registry must exist when the model is created.",
    },
    Rule {
        id: "sagemaker.manifest-type",
        source: "aws/amazon-sagemaker-feedback#180, mlflow/mlflow#13834",
        text: "Only Docker v2 schema 2 manifests are accepted; OCI manifests and indexes are refused.",
    },
    Rule {
        id: "sagemaker.one-model-source",
        source: "API model: ContainerDefinition.ModelDataSource",
        text: "ModelDataUrl and ModelDataSource exclude each other; an S3Prefix ends in a slash.",
    },
    Rule {
        id: "sagemaker.model-data",
        source: "API model: ContainerDefinition.ModelDataUrl",
        text: "The model artifact must exist when an endpoint is created or updated.",
    },
    Rule {
        id: "sagemaker.variant",
        source: "API model: ProductionVariant",
        text: "Variants have distinct names, an existing model, an instance type and a count.",
    },
    Rule {
        id: "sagemaker.config-in-use",
        source: "API model: DeleteEndpointConfig",
        text: "A config that a live endpoint or one being updated uses cannot be deleted.",
    },
    Rule {
        id: "sagemaker.model-in-use",
        source: "aws/amazon-sagemaker-examples#3432, ministryofjustice/analytical-platform#10195",
        text: "A model that a live endpoint serves cannot be deleted.",
    },
    Rule {
        id: "sagemaker.endpoint-busy",
        source: "API model: EndpointStatus",
        text: "An endpoint is updated only when InService and deleted only when InService or Failed.",
    },
    Rule {
        id: "sagemaker.scalable-variant",
        source: "AWS doc: Update endpoints that use auto scaling",
        text: "An update may not remove or retype a variant that is registered as scalable target.",
    },
    Rule {
        id: "sagemaker.quota",
        source: "aws/amazon-sagemaker-examples#307; ministryofjustice/analytical-platform#7803",
        text: "Old and new fleet together stay within `<type> for endpoint usage`.",
    },
    Rule {
        id: "sagemaker.guardrail-variants",
        source: "AWS doc: Deployment guardrails, Exclusions",
        text: "A deployment config needs the same variant names before and after.",
    },
    Rule {
        id: "sagemaker.ping",
        source: "AWS doc: Use your own inference code with hosting services; aws/sagemaker-python-sdk#1554",
        text: "A container answers GET /ping with 200 before its startup timeout is over, or the endpoint fails.",
    },
    Rule {
        id: "sagemaker.start",
        source: "aws-samples/comfyui-on-amazon-sagemaker#2; AWS doc: Use your own inference code with hosting services",
        text: "An image that `docker run IMAGE serve` cannot start fails the endpoint with CannotStartContainerError.",
    },
    Rule {
        id: "sagemaker.processor",
        source: "aws-samples/aws-lex-conv-faq#8; AWS doc: Amazon EC2 instance type naming conventions",
        text: "A program for another processor than the instance's ends with an exec format error, and no ping is answered.",
    },
    Rule {
        id: "sagemaker.model-archive",
        source: "aws/deep-learning-containers#569, mantiumai/aws-sagemaker-gptj-deepspeed-blog#5",
        text: "A model archive is a tar.gz of regular files and directories.",
    },
    Rule {
        id: "sagemaker.invoke-unknown",
        source: "aws/amazon-sagemaker-examples#293, #559",
        text: "An endpoint that is not in service is unknown to InvokeEndpoint.",
    },
    Rule {
        id: "sagemaker.invoke-limits",
        source: "API model: InvokeEndpoint, Header, CustomAttributesHeader; SageMaker quotas",
        text: "An invocation has 60 seconds, 25 MB each way and 1,024 characters in a header.",
    },
    Rule {
        id: "sagemaker.model-error",
        source: "API model: ModelError; RamVegiraju/SageMaker-Deployment#3, aws/amazon-sagemaker-examples#1809, #2815, #4324",
        text: "What is not a success of the container is ModelError 424 with its status and 2,048 bytes of its message.",
    },
];
