"""A Lambda function with a role and a log group of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import pulumi
import pulumi_aws as aws

from .lambda_package import LAMBDA_ARCHITECTURE, LAMBDA_PYTHON, PROJECT, Packaging, lambda_package
from .policy import allow, policy_document, service_trust
from .rules import Rule, boolean, integer, one_of, retention

# A function or log group of an earlier version keeps the name that the program gave it: a new one would replace it.
_NAME = ["name"]
_MAX_NAME_CHARACTERS = 64


@dataclass(frozen=True, kw_only=True)
class FunctionSettings:
    """What all functions of a stack have in common.

    Attributes:
        lambda_packaging: what the archives are built for; see `lambda_package`.
        snap_start: start sandboxes from a snapshot of a published version, which is then what is called.
    """

    lambda_memory_megabytes: int = 512
    log_retention_days: int = 30
    lambda_packaging: Packaging = Packaging.LAMBDA
    tracing: bool = False
    snap_start: bool = False

    @classmethod
    def of(cls, args: Mapping[str, Any]) -> Self:
        """The settings among the checked arguments of a component."""
        return cls(**{each.name: args[each.name] for each in fields(cls)})


SETTINGS_RULES: Mapping[str, Rule] = {
    "lambda_memory_megabytes": integer(128, 10_240, why=" (Lambda's limits)"),
    "log_retention_days": retention(),
    "lambda_packaging": one_of(Packaging),
    "tracing": boolean(),
    "snap_start": boolean(),
}


@dataclass(frozen=True, kw_only=True)
class LambdaFunctionArgs:
    """
    Attributes:
        handler_module: the module in `functions/`, or the path of one elsewhere, whose `handler` is called.
        timeout_seconds: 1 to 900.
        concurrency: how many may run at once; None for as many as the account has left.
        provisioned_concurrency: how many sandboxes of a published version are kept ready. The function then has no
            SnapStart, since Lambda takes one of the two for a version.
    """

    handler_module: str
    environment: pulumi.Input[Mapping[str, pulumi.Input[str]]] = field(default_factory=dict)
    timeout_seconds: int
    settings: FunctionSettings = field(default_factory=FunctionSettings)
    concurrency: int | None = None
    provisioned_concurrency: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.timeout_seconds <= 900:
            raise ValueError(f"timeout_seconds is {self.timeout_seconds}; Lambda allows 1 to 900.")


class LambdaFunction(pulumi.ComponentResource):
    """
    ```python
    handler = LambdaFunction("connection-handler", LambdaFunctionArgs(handler_module="connection_handler", ...))
    table.grant_connections(handler)
    api.configure_routes(handler)
    ```

    Attributes:
        arn, invoke_arn: of what is called: the function, or the alias of its published version.
        qualifier: the alias, for what names a function and its alias apart. None where there is none.
        grants: the policies granted so far. Whatever lets the function be called waits for them.
        service_name: what its log lines and its own metrics are called.
    """

    name: str
    service_name: str
    function_name: pulumi.Output[str]
    arn: pulumi.Output[str]
    invoke_arn: pulumi.Output[str]
    qualifier: pulumi.Output[str] | None
    grants: list[aws.iam.RolePolicy]

    def __init__(self, name: str, args: LambdaFunctionArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("docprogress:infra:LambdaFunction", name, None, opts)
        self.name = name
        self.grants = []
        # In logs and metrics; the function's own name has an ending that Pulumi makes up, so that it is nobody else's.
        self.service_name = f"{pulumi.get_project()}-{pulumi.get_stack()}-{name}"
        _require_short_name(f"{name}-function")
        self._role = aws.iam.Role(
            f"{name}-role",
            description=f"What {self.service_name} may do"[:1000],
            assume_role_policy=service_trust("lambda.amazonaws.com"),
            opts=pulumi.ResourceOptions(parent=self),
        )
        snap_start = args.settings.snap_start and not args.provisioned_concurrency
        is_published = snap_start or bool(args.provisioned_concurrency)
        archive = lambda_package(args.handler_module, target=args.settings.lambda_packaging)
        function = aws.lambda_.Function(
            f"{name}-function",
            role=self._role.arn,
            runtime=f"python{LAMBDA_PYTHON}",
            architectures=[LAMBDA_ARCHITECTURE],
            handler=f"{Path(args.handler_module).stem}.handler",
            code=pulumi.FileArchive(_path_for_state(archive)),
            timeout=args.timeout_seconds,
            memory_size=args.settings.lambda_memory_megabytes,
            reserved_concurrent_executions=args.concurrency,
            environment={"variables": _with_service_name(self.service_name, args.environment)},
            logging_config={
                "log_format": "JSON",
                # Metrics are log lines of level INFO.
                "application_log_level": "INFO",
                "system_log_level": "WARN",
            },
            tracing_config={"mode": "Active" if args.settings.tracing else "PassThrough"},
            publish=is_published or None,
            snap_start={"apply_on": "PublishedVersions"} if snap_start else None,
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=_NAME),
        )
        # There before the first call, which waits for the grants: Lambda would make it without retention.
        log_group = aws.cloudwatch.LogGroup(
            f"{name}-logs",
            name=pulumi.Output.concat("/aws/lambda/", function.name),
            retention_in_days=args.settings.log_retention_days,
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=_NAME),
        )
        self.grant(
            "write-logs",
            allow(["logs:CreateLogStream", "logs:PutLogEvents"], [pulumi.Output.concat(log_group.arn, ":*")]),
        )
        if args.settings.tracing:
            # X-Ray knows no resource that these could name.
            self.grant("write-traces", allow(["xray:PutTelemetryRecords", "xray:PutTraceSegments"], ["*"]))
        self.function_name = function.name
        called = self._alias(function, args.provisioned_concurrency) if is_published else function
        self.arn = called.arn
        self.invoke_arn = called.invoke_arn
        self.qualifier = called.name if called is not function else None
        self.register_outputs({"function_name": self.function_name, "arn": self.arn})

    def _alias(self, function: aws.lambda_.Function, provisioned_concurrency: int) -> aws.lambda_.Alias:
        alias = aws.lambda_.Alias(
            f"{self.name}-live",
            function_name=function.name,
            function_version=function.version,
            description="The version that is called",
            # Where it is given up, Lambda may still hold events for it. It goes with its function.
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=True),
        )
        if provisioned_concurrency:
            aws.lambda_.ProvisionedConcurrencyConfig(
                f"{self.name}-provisioned",
                function_name=function.name,
                qualifier=alias.name,
                provisioned_concurrent_executions=provisioned_concurrency,
                opts=pulumi.ResourceOptions(parent=self),
            )
        return alias

    def grant(
        self, intent: str, *statements: dict[str, Any], parent: pulumi.Resource | None = None
    ) -> aws.iam.RolePolicy:
        """Add a policy to the function's role, as the child of the component that grants.

        Args:
            intent: what the policy is for; with the function's name it names the policy, so a component
                that grants the same twice must say it differently.
        """
        return self.grant_document(intent, policy_document(*statements), parent=parent)

    def grant_document(
        self, intent: str, document: pulumi.Input[str], *, parent: pulumi.Resource | None = None
    ) -> aws.iam.RolePolicy:
        """The same for a whole policy document, as JSON."""
        policy = aws.iam.RolePolicy(
            f"{self.name}-{intent}",
            role=self._role.id,
            policy=document,
            opts=pulumi.ResourceOptions(parent=parent or self),
        )
        self.grants.append(policy)
        return policy


def _require_short_name(name: str) -> None:
    # Pulumi adds a dash and seven digits.
    if len(name) + 8 > _MAX_NAME_CHARACTERS:
        raise ValueError(
            f"The name {name!r} has {len(name)} characters; Lambda allows {_MAX_NAME_CHARACTERS - 8} and Pulumi's"
            " ending. Choose a shorter name for the component."
        )


def _with_service_name(
    name: str, environment: pulumi.Input[Mapping[str, pulumi.Input[str]]]
) -> pulumi.Input[Mapping[str, pulumi.Input[str]]]:
    if isinstance(environment, Mapping):
        return {"POWERTOOLS_SERVICE_NAME": name, **environment}
    return pulumi.Output.all(environment).apply(lambda known: {"POWERTOOLS_SERVICE_NAME": name, **known[0]})


def _path_for_state(archive: Path) -> str:
    # The state of this program must not name a folder of the last person who deployed it. Whoever uses it as a plugin
    # or as a package stands elsewhere, and from there only the whole path leads to the archive.
    return str(archive.relative_to(PROJECT) if Path.cwd() == PROJECT else archive)
