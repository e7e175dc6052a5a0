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
    """

    lambda_memory_megabytes: int = 512
    log_retention_days: int = 30
    lambda_packaging: Packaging = Packaging.LAMBDA
    tracing: bool = False

    @classmethod
    def of(cls, args: Mapping[str, Any]) -> Self:
        """The settings among the checked arguments of a component."""
        return cls(**{each.name: args[each.name] for each in fields(cls)})


SETTINGS_RULES: Mapping[str, Rule] = {
    "lambda_memory_megabytes": integer(128, 10_240, why=" (Lambda's limits)"),
    "log_retention_days": retention(),
    "lambda_packaging": one_of(Packaging),
    "tracing": boolean(),
}


@dataclass(frozen=True, kw_only=True)
class LambdaFunctionArgs:
    """
    Attributes:
        handler_module: the module in `functions/`, or the path of one elsewhere, whose `handler` is called.
        timeout_seconds: 1 to 900.
        concurrency: how many may run at once; None for as many as the account has left.
    """

    handler_module: str
    environment: pulumi.Input[Mapping[str, pulumi.Input[str]]] = field(default_factory=dict)
    timeout_seconds: int
    settings: FunctionSettings = field(default_factory=FunctionSettings)
    concurrency: int | None = None

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
        grants: the policies granted so far. Whatever lets the function be called waits for them.
        service_name: what its log lines and its own metrics are called.
    """

    name: str
    service_name: str
    function_name: pulumi.Output[str]
    arn: pulumi.Output[str]
    invoke_arn: pulumi.Output[str]
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
        self.arn = function.arn
        self.invoke_arn = function.invoke_arn
        self.register_outputs({"function_name": self.function_name, "arn": self.arn})

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
