"""Finds, every minute, the documents whose worker died, and ends them with an error that their watchers hear."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from .lambda_function import FunctionSettings, LambdaFunction, LambdaFunctionArgs
from .publishing import Publishing


@dataclass(frozen=True, kw_only=True)
class StallWatchdogArgs:
    """
    Attributes:
        stall_timeout_seconds: how long a started document may be silent; a living worker writes every 20 s.
    """

    stall_timeout_seconds: int
    publishing: Publishing
    functions: FunctionSettings


class StallWatchdog(pulumi.ComponentResource):
    """
    ```python
    StallWatchdog("stall-watchdog", StallWatchdogArgs(publishing=publishing, ...))
    ```
    """

    function: LambdaFunction

    def __init__(self, name: str, args: StallWatchdogArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("docprogress:infra:StallWatchdog", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self.function = LambdaFunction(
            name,
            LambdaFunctionArgs(
                handler_module="stall_watchdog",
                environment={
                    **args.publishing.worker_environment,
                    "STALL_TIMEOUT_SECONDS": str(args.stall_timeout_seconds),
                },
                timeout_seconds=60,
                settings=args.functions,
            ),
            opts=child,
        )
        args.publishing.table.grant_find_silent_documents(self.function)
        args.publishing.grant_worker(self.function)
        rule = aws.cloudwatch.EventRule(
            f"{name}-every-minute",
            description="Looks for documents whose worker died",
            schedule_expression="rate(1 minute)",
            opts=child,
        )
        permission = aws.lambda_.Permission(
            f"{name}-permission",
            action="lambda:InvokeFunction",
            function=self.function.function_name,
            qualifier=self.function.qualifier,
            principal="events.amazonaws.com",
            source_arn=rule.arn,
            opts=child,
        )
        aws.cloudwatch.EventTarget(
            f"{name}-target",
            rule=rule.name,
            arn=self.function.arn,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[permission, *self.function.grants]),
        )
        self.register_outputs({})
