//! What Application Auto Scaling refuses.

use crate::rules::Rule;

/// The rows.
pub const RULES: &[Rule] = &[
    Rule {
        id: "scaling.variant-exists",
        source: "API model: RegisterScalableTarget, ValidationException",
        text: "A scalable target names a variant of an existing endpoint.",
    },
    Rule {
        id: "scaling.bounds",
        source: "hashicorp/terraform-provider-aws#8777",
        text: "A maximum below the minimum is refused, in a target and in a scheduled action.",
    },
    Rule {
        id: "scaling.bounds-required",
        source: "API model: RegisterScalableTarget",
        text: "Both bounds are required when a target is registered for the first time.",
    },
    Rule {
        id: "scaling.target-required",
        source: "API model: PutScalingPolicy, PutScheduledAction, ObjectNotFoundException",
        text: "Policies and scheduled actions need a registered target.",
    },
    Rule {
        id: "scaling.metric",
        source: "API model: PredefinedMetricSpecification, MetricType",
        text: "Only SageMaker's predefined metrics fit a variant.",
    },
    Rule {
        id: "scaling.one-metric",
        source: "API model: TargetTrackingScalingPolicyConfiguration",
        text: "A target tracking policy has a predefined or a customized metric, and one policy has it.",
    },
    Rule {
        id: "scaling.policy-type",
        source: "API model: PutScalingPolicy",
        text: "The configuration matches the policy type.",
    },
    Rule {
        id: "scaling.schedule",
        source: "API model: PutScheduledAction.Schedule",
        text: "A schedule is at(), rate() or cron() with six fields.",
    },
    Rule {
        id: "scaling.timezone",
        source: "API model: PutScheduledAction.Timezone",
        text: "A time zone is an IANA name.",
    },
    Rule {
        id: "scaling.action-bounds",
        source: "API model: ScalableTargetAction; hashicorp/terraform-provider-aws#8777",
        text: "A scheduled action sets a bound, and a maximum alone is not below the target's minimum.",
    },
];
