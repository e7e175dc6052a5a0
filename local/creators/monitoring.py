"""CloudWatch logs, metrics, alarms and dashboards, SNS, EventBridge rules and schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.creators.creation import Creation, Kind


def _one_target(_creation: Creation, request: dict[str, Any]) -> None:
    request["Targets"] = [request["Targets"]]


def _log_group(creation: Creation, name: str, _answer: Mapping[str, Any]) -> None:
    retention = creation.inputs.get("retentionInDays", 0)
    if retention:  # 0 keeps the events for ever
        creation.aws["logs"].put_retention_policy(logGroupName=name, retentionInDays=retention)


KINDS = {
    "aws:cloudwatch/compositeAlarm:CompositeAlarm": Kind(
        "cloudwatch.PutCompositeAlarm",
        "{name}",
        name="AlarmName",
        name_key="alarmName",
        outputs={"arn": "arn:aws:cloudwatch:{region}:{account}:alarm:{name}"},
    ),
    "aws:sns/topic:Topic": Kind("sns.CreateTopic", "{TopicArn}", name="Name", outputs={"arn": "{TopicArn}"}),
    "aws:sns/topicSubscription:TopicSubscription": Kind(
        "sns.Subscribe", "{SubscriptionArn}", fields={"topic": "TopicArn"}, outputs={"arn": "{SubscriptionArn}"}
    ),
    "aws:cloudwatch/logGroup:LogGroup": Kind(
        "logs.CreateLogGroup",
        "{name}",
        name="logGroupName",
        handled="retentionInDays",
        outputs={"arn": "arn:aws:logs:{region}:{account}:log-group:{name}"},
        then=_log_group,
    ),
    "aws:cloudwatch/logMetricFilter:LogMetricFilter": Kind(
        "logs.PutMetricFilter",
        "{name}",
        name="filterName",
        fields={
            "pattern": "filterPattern",
            "metricTransformation.name": "metricName",
            "metricTransformation.namespace": "metricNamespace",
            "metricTransformation.value": "metricValue",
        },
    ),
    "aws:cloudwatch/metricAlarm:MetricAlarm": Kind(
        "cloudwatch.PutMetricAlarm",
        "{name}",
        name="AlarmName",
        fields={
            "metricQueries": "Metrics",
            "metricQueries.metric": "MetricStat",
            "metricQueries.metric.metricName": "Metric.MetricName",
            "metricQueries.metric.namespace": "Metric.Namespace",
            "metricQueries.metric.dimensions": "Metric.Dimensions",
        },
        outputs={"arn": "arn:aws:cloudwatch:{region}:{account}:alarm:{name}"},
    ),
    "aws:cloudwatch/dashboard:Dashboard": Kind(
        "cloudwatch.PutDashboard",
        "{name}",
        name="DashboardName",
        name_key="dashboardName",
        outputs={"dashboardArn": "arn:aws:cloudwatch::{account}:dashboard/{name}"},  # dashboards have no region
    ),
    "aws:cloudwatch/eventRule:EventRule": Kind(
        "events.PutRule",
        "{name}",
        name="Name",
        fields={"isEnabled": ("State", lambda enabled: "ENABLED" if enabled else "DISABLED")},
        outputs={"arn": "{RuleArn}", "eventBusName": "{eventBusName}"},
    ),
    "aws:cloudwatch/eventTarget:EventTarget": Kind(
        "events.PutTargets",
        "{rule}-{name}",
        name="Targets.Id",
        name_key="targetId",
        fields={
            "sqsTarget": "Targets.SqsParameters",
            "inputTransformer": "Targets.InputTransformer",
            "inputTransformer.inputPaths": "InputPathsMap",
        },
        inside="Targets",
        complete=_one_target,
        outputs={"eventBusName": "{eventBusName}"},
    ),
    "aws:scheduler/schedule:Schedule": Kind(
        "scheduler.CreateSchedule", "{groupName}/{name}", name="Name", outputs={"arn": "{ScheduleArn}"}
    ),
}
