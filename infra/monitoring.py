"""What watches a stack: its alarms, its dashboard and the queries of its logs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from .alarms import Alarms, AlarmsArgs, alarm_names
from .dashboard import Dashboard, DashboardArgs
from .document_progress import DocumentProgress
from .lambda_function import LambdaFunction
from .log_queries import LogQueries
from .monitored import Monitored
from .rules import Rule, boolean, list_of, matching

MONITORING_RULES: Mapping[str, Rule] = {
    "alarm_email": matching("an email address", r"[^\s@]+@[^\s@]+\.[^\s@]+", "on-call@example.com"),
    "alarm_topic_arn": matching(
        "the ARN of an SNS topic",
        r"arn:[a-z-]+:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]+",
        "arn:aws:sns:us-east-1:123456789012:on-call",
    ),
    "alarm_thresholds": list_of(
        matching(
            "ALARM=NUMBER, with an alarm of docs/operations.md",
            rf"({'|'.join(alarm_names())})=[0-9]+(\.[0-9]+)?",
            "latency=5000",
        )
    ),
    "dashboard": boolean(),
}


@dataclass(frozen=True, kw_only=True)
class MonitoringArgs:
    """
    Attributes:
        alarm_email, alarm_topic_arn: who is told; neither: there are no alarms.
        alarm_thresholds: such as `latency=5000`.
    """

    alarm_email: str = ""
    alarm_topic_arn: str = ""
    alarm_thresholds: Sequence[str] = ()
    dashboard: bool = True

    def __post_init__(self) -> None:
        for name, rule in MONITORING_RULES.items():
            rule.check(name, getattr(self, name))
        alarms = [each.partition("=")[0] for each in self.alarm_thresholds]
        if twice := sorted({alarm for alarm in alarms if alarms.count(alarm) > 1}):
            raise ValueError(f"alarm_thresholds has {', '.join(twice)} more than once; give each alarm one threshold.")


class Monitoring(pulumi.ComponentResource):
    """
    ```python
    Monitoring("monitoring", MonitoringArgs(alarm_email="on-call@example.com"), progress=progress, workers=[worker])
    ```

    Args:
        workers: the functions that report documents.
        others: more functions to watch.
        dead_letters: the name of the queue of events that were given up.
    """

    function_names: pulumi.Output[Mapping[str, str]]
    dashboard_name: pulumi.Output[str] | None

    def __init__(
        self,
        name: str,
        args: MonitoringArgs,
        opts: pulumi.ResourceOptions | None = None,
        *,
        progress: DocumentProgress,
        workers: Iterable[LambdaFunction] = (),
        others: Iterable[LambdaFunction] = (),
        dead_letters: pulumi.Input[str] | None = None,
    ) -> None:
        super().__init__("docprogress:infra:Monitoring", name, None, opts)
        monitored = _monitored(progress, tuple(workers), tuple(others), dead_letters)
        child = pulumi.ResourceOptions(parent=self)
        alarm_arns: Sequence[pulumi.Input[str]] = ()
        if args.alarm_email or args.alarm_topic_arn:
            thresholds = dict(each.split("=") for each in args.alarm_thresholds)
            alarms = Alarms(
                "alarms",
                AlarmsArgs(
                    monitored=monitored,
                    email=args.alarm_email,
                    topic_arn=args.alarm_topic_arn,
                    thresholds={alarm: float(value) for alarm, value in thresholds.items()},
                ),
                child,
            )
            alarm_arns = alarms.arns
        self.dashboard_name = None
        if args.dashboard:
            dashboard = Dashboard("dashboard", DashboardArgs(monitored=monitored, alarm_arns=alarm_arns), child)
            self.dashboard_name = dashboard.dashboard_name
        LogQueries("log-queries", monitored, child)
        self.function_names = pulumi.Output.all(**monitored.functions)
        self.register_outputs({})


def _monitored(
    progress: DocumentProgress,
    workers: Sequence[LambdaFunction],
    others: Sequence[LambdaFunction],
    dead_letters: pulumi.Input[str] | None,
) -> Monitored:
    fan_out = progress.stream_fan_out
    telling = (fan_out,) if fan_out else (*workers, progress.watchdog)
    functions = (*progress.api.functions, progress.watchdog, *telling, *workers, *others)
    stack = pulumi.get_stack().replace(".", "-")
    optional: dict[str, Any] = {"stream": fan_out.name} if fan_out else {}
    return Monitored(
        # No two APIs of an account have the same id, in whatever region.
        name=pulumi.Output.concat(f"{pulumi.get_project()}-{stack}-", progress.api_id),
        region=progress.watchdog.arn.apply(lambda arn: arn.split(":")[3]),
        api_id=progress.api_id,
        stage_name=progress.stage_name,
        access_log_group=progress.api.access_log_group,
        table_name=progress.table_name,
        functions={function.name: function.function_name for function in functions},
        services={function.name: function.service_name for function in functions},
        handler=progress.handler.name,
        announcers=tuple(function.name for function in telling),
        workers=tuple(function.name for function in workers),
        watchdog=progress.watchdog.name,
        dead_letter_queue=dead_letters,
        **optional,
    )
