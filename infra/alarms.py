"""The alarms of a stack: one table, of which the alarms, their part of the dashboard and their documentation are made.

An alarm is a row of `ALARMS`. A row that wakes is part of the composite alarm, the only one that notifies: so an
incident is one notification, and its message names the alarms that caused it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pulumi
import pulumi_aws as aws

from .monitored import API_GATEWAY, DYNAMODB, LAMBDA, OWN, SQS, Dimensions, Monitored, Parts

_PERIOD_SECONDS = 300


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """
    Attributes:
        name: of the alarm, and in `alarmThresholds`.
        of: an alarm is made for each of these parts.
        metrics: the names of one metric, or of those in the expression.
        statistic: such as Sum or p99.
        expression: metric math over the metrics, which are written with a small first letter.
        below: it alarms under the threshold, not from the threshold up.
        periods: how many of how many five-minute periods have to be bad.
        missing: what a period without data is.
        wakes: whether somebody has to look now, at night too.
        reason: why this threshold. means: what has happened. first: what to do first.
    """

    name: str
    of: Parts
    namespace: str
    metrics: tuple[str, ...]
    statistic: str = "Sum"
    expression: str = ""
    below: bool = False
    threshold: float
    unit: str
    periods: tuple[int, int] = (1, 1)
    missing: Literal["notBreaching", "breaching"] = "notBreaching"
    wakes: bool = True
    reason: str
    means: str
    first: str


ALARMS = (
    Alarm(
        name="execution-errors",
        of="api",
        namespace=API_GATEWAY,
        metrics=("ExecutionError",),
        threshold=1,
        unit="errors",
        periods=(2, 2),
        reason="There is no harmless cause; one alone may be a deployment.",
        means="API Gateway cannot invoke a function: its role, its throttle or its time-out.",
        first="`make doctor`, then the execution log of the stage.",
    ),
    Alarm(
        name="integration-errors",
        of="api",
        namespace=API_GATEWAY,
        metrics=("IntegrationError",),
        threshold=10,
        unit="errors",
        periods=(2, 2),
        reason="A refused `Origin` counts too, and pages that are not allowed come singly.",
        means="The connection handler answers 500, or a page outside `allowedOrigins` tries to connect.",
        first="The query *connections that failed*; then *errors by route*.",
    ),
    Alarm(
        name="client-errors",
        of="api",
        namespace=API_GATEWAY,
        metrics=("ClientError",),
        threshold=50,
        unit="errors",
        periods=(2, 2),
        wakes=False,
        reason="Expired tokens come singly; fifty are a broken page, a wrong issuer or an attack.",
        means="Connections are refused before any function runs: 401, 403 or 429.",
        first="The query *connections that failed*, by `status`.",
    ),
    Alarm(
        name="latency",
        of="api",
        namespace=API_GATEWAY,
        metrics=("IntegrationLatency",),
        statistic="p99",
        threshold=3000,
        unit="ms",
        periods=(3, 3),
        reason="The time-out of one call to the table; a cold start stays under it.",
        means="Pages wait for the connection handler.",
        first="The dashboard: the handler's `Duration`, then the table's latency and throttles.",
    ),
    Alarm(
        name="function-errors",
        of="functions",
        namespace=LAMBDA,
        metrics=("Errors",),
        threshold=3,
        unit="errors",
        reason="Lambda tries an event three times; fewer are one that went well in the end.",
        means="The function raised, ran out of memory or out of time.",
        first="Its log group, newest `ERROR` first.",
    ),
    Alarm(
        name="function-throttles",
        of="functions",
        namespace=LAMBDA,
        metrics=("Throttles",),
        threshold=1,
        unit="throttles",
        periods=(2, 2),
        reason="Lambda repeats a throttled event; a page that connects gets an error at once.",
        means="The account's or the function's concurrency is used up.",
        first="The dashboard's concurrency; find the function that uses it; then raise the quota.",
    ),
    Alarm(
        name="concurrency",
        of="account",
        namespace=LAMBDA,
        metrics=("ConcurrentExecutions",),
        statistic="Maximum",
        threshold=800,
        unit="executions",
        periods=(2, 2),
        reason="80 % of the default quota of 1,000, which all functions of the account share.",
        means="Soon every function in the region is throttled, ours and others'.",
        first="Raise the quota (L-B99A9384); until then reserve concurrency for the connection handler.",
    ),
    Alarm(
        name="delivery-throttled",
        of="announcers",
        namespace=OWN,
        metrics=("MessagesDelivered", "MessagesThrottled"),
        expression=(
            "IF(messagesDelivered + messagesThrottled >= 100,"
            " 100 * messagesThrottled / (messagesDelivered + messagesThrottled), 0)"
        ),
        threshold=1,
        unit="% of posts",
        periods=(2, 2),
        wakes=False,
        reason="Retries absorb less; under 100 posts one slow client would be a percentage.",
        means="The account's 10,000 requests/s are used up, or clients do not read.",
        first="*slowest messages*; then [scaling.md](scaling.md).",
    ),
    Alarm(
        name="delivery-failed",
        of="announcers",
        namespace=OWN,
        metrics=("MessagesDelivered", "MessagesFailed"),
        expression=(
            "IF(messagesDelivered + messagesFailed >= 20,"
            " 100 * messagesFailed / (messagesDelivered + messagesFailed), 0)"
        ),
        threshold=1,
        unit="% of posts",
        periods=(2, 2),
        reason="A failed post was retried until its time was over; with the callback URL or a grant broken it is 100.",
        means="Watchers miss updates: a grant, the callback URL, or API Gateway itself.",
        first="`make doctor`, which posts to a connection of its own.",
    ),
    Alarm(
        name="fan-out-slow",
        of="announcers",
        namespace=OWN,
        metrics=("FanOutTime",),
        statistic="p99",
        threshold=2000,
        unit="ms",
        periods=(3, 3),
        wakes=False,
        reason="The deadline of a progress message: a watcher that was not reached waits for the next one.",
        means="A document has more watchers than one update reaches in time.",
        first="*slowest messages*; then [scaling.md](scaling.md).",
    ),
    Alarm(
        name="documents-stalled",
        of="watchdog",
        namespace=OWN,
        metrics=("DocumentsStalled",),
        threshold=1,
        unit="documents",
        reason="A worker that lives writes every 20 s, so each one died.",
        means="The watchdog ended a document whose worker fell silent: memory, time or a crash.",
        first="*life of a document* with its id, from the line `Stalled`; then the worker's log.",
    ),
    Alarm(
        name="ends-told-late",
        of="watchdog",
        namespace=OWN,
        metrics=("EndsToldLate",),
        threshold=1,
        unit="documents",
        periods=(2, 2),
        wakes=False,
        reason="One is a worker that died between its last write and its last post; more are a fault of posting.",
        means="Documents had ended, and the watchdog had to tell their watchers, a minute or more too late.",
        first="*life of a document* with its id, from the line `Ended untold`; then delivery on the dashboard.",
    ),
    Alarm(
        name="documents-failed",
        of="workers",
        namespace=OWN,
        metrics=("DocumentsFailed",),
        threshold=3,
        unit="attempts",
        reason="A document has up to three attempts: three are one that failed for good, or many that failed once.",
        means="The worker raised while it processed a document.",
        first="The worker's log, newest `ERROR` first.",
    ),
    Alarm(
        name="events-dropped",
        of="workers",
        namespace=LAMBDA,
        metrics=("AsyncEventsDropped",),
        threshold=1,
        unit="events",
        reason="A dropped event is a document that nobody will process.",
        means="Lambda gave an upload up after all attempts, or after six hours of throttling.",
        first="The worker's log; then upload the document again.",
    ),
    Alarm(
        name="dead-letters",
        of="dead letters",
        namespace=SQS,
        metrics=("ApproximateNumberOfMessagesVisible",),
        statistic="Maximum",
        threshold=1,
        unit="messages",
        reason="Each is an event that nobody will process.",
        means="Events were given up and wait in the queue.",
        first="Read one: it has the event and the error. Mend the cause, then redrive the queue.",
    ),
    Alarm(
        name="stream-late",
        of="stream",
        namespace=LAMBDA,
        metrics=("IteratorAge",),
        statistic="Maximum",
        threshold=30_000,
        unit="ms",
        reason="What is older than 120 s is dropped.",
        means="Pages hear of their documents half a minute late.",
        first="The function's errors and duration on the dashboard.",
    ),
    Alarm(
        name="table-read-throttles",
        of="table",
        namespace=DYNAMODB,
        metrics=("ReadThrottleEvents",),
        threshold=10,
        unit="events",
        periods=(2, 2),
        reason="An on-demand table that grows throttles for a minute, and boto3 repeats the call.",
        means="Snapshots and watchers are read late: one document is very hot, or traffic doubled in minutes.",
        first="The number of watchers of the hottest document: *cost by document*.",
    ),
    Alarm(
        name="table-write-throttles",
        of="table",
        namespace=DYNAMODB,
        metrics=("WriteThrottleEvents",),
        threshold=10,
        unit="events",
        periods=(2, 2),
        reason="As for reads.",
        means="Progress is written late: a storm of connections, or traffic doubled in minutes.",
        first="*cost by document*; the connections opened on the dashboard.",
    ),
    Alarm(
        name="index-throttles",
        of="indexes",
        namespace=DYNAMODB,
        metrics=("WriteThrottleEvents",),
        threshold=10,
        unit="events",
        periods=(2, 2),
        reason="As for the table. A full index makes the table refuse writes.",
        means="Starts and ends of documents (`by_activity`) or subscriptions (`by_connection`) are written late.",
        first="The documents started and connections opened on the dashboard.",
    ),
    Alarm(
        name="metrics-stopped",
        of="watchdog",
        namespace=OWN,
        metrics=("DocumentsStalled",),
        statistic="SampleCount",
        below=True,
        threshold=3,
        unit="reports",
        periods=(2, 2),
        missing="breaching",
        reason="The watchdog reports every minute, with 0 too.",
        means="The watchdog does not run, or no metric of ours arrives: no other alarm on them can be trusted.",
        first="The watchdog's `Invocations` and `Errors`, then its rule.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class AlarmsArgs:
    """
    Attributes:
        email: who is told; they confirm the subscription once, by a link that AWS sends.
        topic_arn: an SNS topic that is told instead.
        thresholds: other thresholds than the table's, by the alarm's name.
    """

    monitored: Monitored
    email: str = ""
    topic_arn: pulumi.Input[str] = ""
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.email) == bool(self.topic_arn):
            raise ValueError("Alarms tell either an email or a topic_arn; give one of them.")
        if unknown := self.thresholds.keys() - {alarm.name for alarm in ALARMS}:
            raise ValueError(f"There is no alarm {', '.join(sorted(unknown))}; there are {', '.join(alarm_names())}.")


class Alarms(pulumi.ComponentResource):
    """
    ```python
    alarms = Alarms("alarms", AlarmsArgs(monitored=monitored, email="on-call@example.com"))
    ```

    Attributes:
        arns: of the composite alarm first, then of the others.
    """

    arns: list[pulumi.Output[str]]

    def __init__(self, name: str, args: AlarmsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("docprogress:infra:Alarms", name, None, opts)
        self._name = name
        self._args = args
        self._child = pulumi.ResourceOptions(parent=self)
        made = [
            (row, self._alarm(row, part, dimensions))
            for row in ALARMS
            for part, dimensions in args.monitored.parts(row.of, row.namespace).items()
        ]
        waking = [alarm.arn for row, alarm in made if row.wakes]
        topic_arn = args.topic_arn or self._topic(args.email)
        composite = aws.cloudwatch.CompositeAlarm(
            f"{name}-any",
            alarm_name=pulumi.Output.concat(args.monitored.name, "-needs-somebody"),
            alarm_description="An alarm that somebody has to look at now. The message names it.",
            alarm_rule=pulumi.Output.all(*waking).apply(lambda arns: " OR ".join(f'ALARM("{arn}")' for arn in arns)),
            alarm_actions=[topic_arn],
            ok_actions=[topic_arn],
            opts=self._child,
        )
        self.arns = [composite.arn, *(alarm.arn for _, alarm in made)]
        self.register_outputs({})

    def _topic(self, email: str) -> pulumi.Output[str]:
        topic = aws.sns.Topic(f"{self._name}-topic", opts=self._child)
        aws.sns.TopicSubscription(
            f"{self._name}-email", topic=topic.arn, protocol="email", endpoint=email, opts=self._child
        )
        return topic.arn

    def _alarm(self, row: Alarm, part: str, dimensions: Dimensions) -> aws.cloudwatch.MetricAlarm:
        suffix = f"{row.name}-{part}" if part else row.name
        bad, evaluated = row.periods
        return aws.cloudwatch.MetricAlarm(
            f"{self._name}-{suffix}",
            name=pulumi.Output.concat(self._args.monitored.name, "-", suffix),
            alarm_description=f"{row.means} First: {row.first}",
            comparison_operator="LessThanThreshold" if row.below else "GreaterThanOrEqualToThreshold",
            threshold=self._args.thresholds.get(row.name, row.threshold),
            datapoints_to_alarm=bad,
            evaluation_periods=evaluated,
            treat_missing_data=row.missing,
            **_metric(row, dimensions),
            opts=self._child,
        )


def _metric(row: Alarm, dimensions: Dimensions) -> dict[str, Any]:
    if row.expression:
        queries: list[dict[str, Any]] = [
            {
                "id": metric[0].lower() + metric[1:],
                "metric": {
                    "namespace": row.namespace,
                    "metric_name": metric,
                    "dimensions": dimensions,
                    "stat": row.statistic,
                    "period": _PERIOD_SECONDS,
                },
                "return_data": False,
            }
            for metric in row.metrics
        ]
        return {
            "metric_queries": [
                *queries,
                {"id": "value", "expression": row.expression, "label": row.unit, "return_data": True},
            ]
        }
    return {
        "namespace": row.namespace,
        "metric_name": row.metrics[0],
        "dimensions": dimensions,
        "extended_statistic" if row.statistic.startswith("p") else "statistic": row.statistic,
        "period": _PERIOD_SECONDS,
    }


def alarm_names() -> list[str]:
    return [alarm.name for alarm in ALARMS]


def alarms_in_markdown() -> str:
    """The table of docs/operations.md."""
    lines = ["| alarm | on | threshold | why this one | it means | first |", "|---|---|---|---|---|---|"]
    for row in ALARMS:
        metrics = " and ".join(f"`{metric}`" for metric in row.metrics)
        bad, evaluated = row.periods
        often = "once" if bad == 1 else f"{bad} periods in a row" if bad == evaluated else f"{bad} of {evaluated}"
        limit = f"{'<' if row.below else '≥'} {row.threshold:,g} {row.unit}, {often}"
        name = f"**{row.name}**" if row.wakes else row.name
        cells = (name, f"{metrics} ({row.namespace}, {row.of})", limit, row.reason, row.means, row.first)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
