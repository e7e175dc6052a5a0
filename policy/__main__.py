"""The rules of stack_rules.py as a policy pack: `pulumi preview --policy-pack policy`."""

from collections.abc import Callable

from pulumi_policy import (
    EnforcementLevel,
    PolicyPack,
    PolicyResource,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)

from stack_rules import RESOURCE_RULES, STACK_RULES, Declared, ResourceRule, StackRule


def of_resource(rule: ResourceRule) -> Callable[[ResourceValidationArgs, ReportViolation], None]:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        for message in rule.check(Declared(args.resource_type, args.name, args.urn, args.props)):
            report(message, args.urn)

    return validate


def of_stack(rule: StackRule) -> Callable[[StackValidationArgs, ReportViolation], None]:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        for resource, message in rule.check([declared(each) for each in args.resources]):
            report(message, resource.urn)

    return validate


def declared(resource: PolicyResource) -> Declared:
    return Declared(
        resource.resource_type,
        resource.name,
        resource.urn,
        resource.props,
        parent=resource.parent.urn if resource.parent else "",
        protect=resource.opts.protect,
    )


PolicyPack(
    name="docprogress",
    enforcement_level=EnforcementLevel.MANDATORY,
    policies=[
        *(ResourceValidationPolicy(each.name, each.description, of_resource(each)) for each in RESOURCE_RULES),
        *(StackValidationPolicy(each.name, each.description, of_stack(each)) for each in STACK_RULES),
    ],
)
