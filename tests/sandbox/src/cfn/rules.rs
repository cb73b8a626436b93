//! What CloudFormation refuses here, with sources. A test names every row and shows that it bites.

use crate::rules::Rule;

const fn rule(id: &'static str, source: &'static str, text: &'static str) -> Rule {
    Rule { id, source, text }
}

/// The rows.
pub const RULES: &[Rule] = &[
    rule("cfn.body-limit", "API model: TemplateBody", "A template body has at most 51,200 bytes."),
    rule(
        "cfn.template-sections",
        "AWS doc: Template sections",
        "A template has the known sections only, and at least one resource.",
    ),
    rule("cfn.unknown-type", "AWS doc: Resource and property types reference", "A resource type has to exist."),
    rule(
        "cfn.unresolved-reference",
        "AWS doc: Ref; Fn::GetAtt",
        "What Ref, GetAtt, Sub and DependsOn name has to be in the template.",
    ),
    rule(
        "cfn.attribute",
        "AWS doc: return values of each type; resource schema readOnlyProperties",
        "GetAtt asks for attributes the type has.",
    ),
    rule("cfn.condition", "AWS doc: Conditions", "Conditions exist, are boolean, and mention no resources."),
    rule(
        "cfn.cycle",
        "AWS doc: Troubleshooting, circular dependency",
        "Resources do not depend on each other in a circle.",
    ),
    rule(
        "cfn.property",
        "resource schemas; AWS doc: Validate stack deployments",
        "Properties are known, of the right type, and complete.",
    ),
    rule("cfn.parameter-unknown", "AWS doc: Parameters", "A value is given for declared parameters only."),
    rule("cfn.parameter-missing", "AWS doc: Parameters", "A parameter without a default has to be given."),
    rule(
        "cfn.parameter-constraint",
        "AWS doc: Parameters",
        "Values keep to pattern, allowed values, length and range.",
    ),
    rule(
        "cfn.capabilities",
        "API model: CreateStackInput$Capabilities",
        "IAM resources need CAPABILITY_IAM, named ones CAPABILITY_NAMED_IAM.",
    ),
    rule("cfn.create-exists", "API model: AlreadyExistsException", "A stack name is used once in a region."),
    rule("cfn.busy", "AWS doc: Stack status codes", "A stack with an operation in progress takes no other."),
    rule(
        "cfn.rollback-complete",
        "AWS doc: Stack status codes, ROLLBACK_COMPLETE",
        "A stack whose creation was rolled back can only be deleted.",
    ),
    rule(
        "cfn.no-updates",
        "aws/aws-cli#2717",
        "An update without a change is refused; a change set without one fails.",
    ),
    rule(
        "cfn.obsolete",
        "API model: ExecutionStatus",
        "Executing one change set makes the others of the stack OBSOLETE.",
    ),
    rule("cfn.custom-name", "AWS doc: Name type", "A custom-named resource cannot be replaced under the same name."),
    rule(
        "cfn.name-taken",
        "AWS doc: Validate stack deployments",
        "A custom name that is taken cannot be created again.",
    ),
    rule(
        "cfn.import-policy",
        "API model: CreateChangeSetInput$ImportExistingResources",
        "An imported resource has a DeletionPolicy that keeps it.",
    ),
    rule(
        "cfn.replace-no-rollback",
        "AWS doc: Choose how to handle failures when provisioning resources",
        "With rollback disabled nothing is replaced.",
    ),
    rule("cfn.type-change", "AWS doc: Troubleshooting", "The type of a resource never changes."),
    rule("cfn.protected", "API model: UpdateTerminationProtection", "A protected stack is not deleted."),
    rule("cfn.delete-busy", "API model: DeleteStack", "A stack that is being updated is not deleted."),
    rule(
        "cfn.delete-full",
        "AWS doc: Delete stack fails",
        "A bucket or repository with content makes the deletion fail.",
    ),
    rule(
        "cfn.retain-resources",
        "API model: DeleteStackInput$RetainResources",
        "Resources are retained by request only after DELETE_FAILED.",
    ),
    rule("cfn.cancel", "API model: CancelUpdateStack", "Only UPDATE_IN_PROGRESS can be cancelled."),
    rule(
        "cfn.continue",
        "API model: ContinueUpdateRollback",
        "Only UPDATE_ROLLBACK_FAILED can be continued, skipping only what failed then.",
    ),
    rule("cfn.rollback-stack", "API model: RollbackStack", "Only CREATE_FAILED and UPDATE_FAILED can be rolled back."),
    rule("cfn.token", "API model: TokenAlreadyExistsException", "A request token stands for one request."),
    rule("cfn.deleted-by-name", "API model: DescribeStacks", "A deleted stack is found by its id only."),
    rule("cfn.change-set-type", "API model: ChangeSetType", "CREATE is for new stacks, UPDATE for standing ones."),
    rule("cfn.aws-tags", "API model: Tag", "Tag keys do not begin with aws:."),
];
