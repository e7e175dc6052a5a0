"""CloudWatch logs, metrics and dashboards, EventBridge rules and schedules."""

from typing import Any

from .creation import ACCOUNT, Created, Creation, Creator, arn, json_text, pascal, record, records, tag_list

_RETRY_POLICY = record(pascal("maximumEventAgeInSeconds maximumRetryAttempts"))
_DEAD_LETTER = record(pascal("arn"))


def log_group(creation: Creation) -> Created:
    name = creation.physical_name()
    request = creation.request(
        {
            "kmsKeyId": "kmsKeyId",
            "logGroupClass": "logGroupClass",
            "deletionProtectionEnabled": "deletionProtectionEnabled",
            "tags": "tags",
        },
        handled="name namePrefix retentionInDays",
        ignored={"skipDestroy": "nothing is destroyed one by one"},
    )
    logs = creation.aws["logs"]
    logs.create_log_group(logGroupName=name, **request)
    retention = creation.inputs.get("retentionInDays", 0)
    if retention:  # 0 keeps the events for ever
        logs.put_retention_policy(logGroupName=name, retentionInDays=retention)
    return creation.created(name, name=name, arn=arn("logs", f"log-group:{name}"))


def log_metric_filter(creation: Creation) -> Created:
    name = creation.physical_name()

    transformation = record(
        {
            "name": "metricName",
            "namespace": "metricNamespace",
            "value": "metricValue",
            "defaultValue": ("defaultValue", float),
            "dimensions": "dimensions",
            "unit": "unit",
        }
    )
    request = creation.request(
        {
            "name": "filterName",
            "logGroupName": "logGroupName",
            "pattern": "filterPattern",
            "applyOnTransformedLogs": "applyOnTransformedLogs",
            "metricTransformation": ("metricTransformations", lambda value: [transformation(value)]),
        }
    )
    creation.aws["logs"].put_metric_filter(**{**request, "filterName": name})
    return creation.created(name, name=name)


def _dimensions(dimensions: dict[str, str]) -> list[dict[str, str]]:
    return [{"Name": name, "Value": value} for name, value in dimensions.items()]


def metric_alarm(creation: Creation) -> Created:
    name = creation.physical_name()
    metric = record(pascal("metricName namespace") | {"dimensions": ("Dimensions", _dimensions)})

    def metric_stat(value: dict[str, Any]) -> dict[str, Any]:
        own = {key: value[key] for key in ("metricName", "namespace", "dimensions") if key in value}
        others = {key: each for key, each in value.items() if key not in own}
        return {"Metric": metric(own), **record(pascal("period stat unit"))(others)}

    request = creation.request(
        pascal(
            "actionsEnabled alarmActions alarmDescription comparisonOperator datapointsToAlarm evaluationPeriods "
            "extendedStatistic insufficientDataActions metricName namespace period statistic threshold "
            "thresholdMetricId treatMissingData unit"
        )
        | {
            "name": "AlarmName",
            "okActions": "OKActions",
            "dimensions": ("Dimensions", _dimensions),
            "evaluateLowSampleCountPercentiles": "EvaluateLowSampleCountPercentile",
            "tags": ("Tags", tag_list),
            "metricQueries": (
                "Metrics",
                records(
                    pascal("accountId expression id label period returnData") | {"metric": ("MetricStat", metric_stat)}
                ),
            ),
        }
    )
    creation.aws["cloudwatch"].put_metric_alarm(**{**request, "AlarmName": name})
    return creation.created(name, name=name, arn=arn("cloudwatch", f"alarm:{name}"))


def dashboard(creation: Creation) -> Created:
    name = creation.physical_name("dashboardName")
    request = creation.request({"dashboardName": "DashboardName", "dashboardBody": ("DashboardBody", json_text)})
    creation.aws["cloudwatch"].put_dashboard(**{**request, "DashboardName": name})
    dashboard_arn = f"arn:aws:cloudwatch::{ACCOUNT}:dashboard/{name}"  # dashboards have no region
    return creation.created(name, dashboardName=name, dashboardArn=dashboard_arn)


def event_rule(creation: Creation) -> Created:
    name = creation.physical_name()
    request = creation.request(
        pascal("description eventBusName roleArn scheduleExpression state")
        | {
            "name": "Name",
            "eventPattern": ("EventPattern", json_text),
            "isEnabled": ("State", lambda enabled: "ENABLED" if enabled else "DISABLED"),
            "tags": ("Tags", tag_list),
        },
        handled="namePrefix",
        ignored={"forceDestroy": "nothing is destroyed one by one"},
    )
    rule_arn = creation.aws["events"].put_rule(**{**request, "Name": name})["RuleArn"]
    return creation.created(name, name=name, arn=rule_arn, eventBusName=request.get("EventBusName", "default"))


def event_target(creation: Creation) -> Created:
    target_id = creation.physical_name("targetId")
    target = creation.request(
        pascal("arn input inputPath roleArn")
        | {
            "targetId": "Id",
            "deadLetterConfig": ("DeadLetterConfig", _DEAD_LETTER),
            "retryPolicy": ("RetryPolicy", _RETRY_POLICY),
            "sqsTarget": ("SqsParameters", record(pascal("messageGroupId"))),
            "inputTransformer": (
                "InputTransformer",
                record({"inputPaths": "InputPathsMap", "inputTemplate": "InputTemplate"}),
            ),
        },
        handled="rule eventBusName",
        ignored={"forceDestroy": "nothing is destroyed one by one"},
    )
    rule, bus = creation.inputs["rule"], creation.inputs.get("eventBusName", "default")
    creation.aws["events"].put_targets(Rule=rule, EventBusName=bus, Targets=[{**target, "Id": target_id}])
    return creation.created(f"{rule}-{target_id}", targetId=target_id, eventBusName=bus)


def schedule(creation: Creation) -> Created:
    name = creation.physical_name()
    request = creation.request(
        pascal("actionAfterCompletion description endDate groupName kmsKeyArn name scheduleExpression")
        | pascal("scheduleExpressionTimezone startDate state")
        | {
            "flexibleTimeWindow": ("FlexibleTimeWindow", record(pascal("maximumWindowInMinutes mode"))),
            "target": (
                "Target",
                record(
                    pascal("arn input roleArn")
                    | {
                        "deadLetterConfig": ("DeadLetterConfig", _DEAD_LETTER),
                        "retryPolicy": ("RetryPolicy", _RETRY_POLICY),
                        "eventbridgeParameters": (
                            "EventBridgeParameters",
                            record(pascal("detailType source")),
                        ),
                        "sqsParameters": ("SqsParameters", record(pascal("messageGroupId"))),
                    }
                ),
            ),
        },
        handled="namePrefix",
    )
    schedule_arn = creation.aws["scheduler"].create_schedule(**{**request, "Name": name})["ScheduleArn"]
    return creation.created(f"{request.get('GroupName', 'default')}/{name}", name=name, arn=schedule_arn)


CREATORS: dict[str, Creator] = {
    "aws:cloudwatch/logGroup:LogGroup": log_group,
    "aws:cloudwatch/logMetricFilter:LogMetricFilter": log_metric_filter,
    "aws:cloudwatch/metricAlarm:MetricAlarm": metric_alarm,
    "aws:cloudwatch/dashboard:Dashboard": dashboard,
    "aws:cloudwatch/eventRule:EventRule": event_rule,
    "aws:cloudwatch/eventTarget:EventTarget": event_target,
    "aws:scheduler/schedule:Schedule": schedule,
}
