"""Each fault that an alarm is for, made on the emulator: the metric moves under the very name that the alarm watches.

Does not prove what the emulator does not count: anything of API Gateway (execution, integration and client errors,
latency) and of DynamoDB (throttles), Lambda's concurrency, dropped events and IteratorAge, and throttled posts.
Nor that CloudWatch takes metrics out of log lines as their format says, or how alarms are evaluated.
"""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infra.alarms import ALARMS
from infra.monitored import API_GATEWAY, DYNAMODB, LAMBDA, OWN
from tests.local.conftest import DeployedStack
from tests.local.scenarios import ask, eventually, put_silent_document, upload

Stack = DeployedStack


def watched(stack: Stack, alarm: str) -> list[dict[str, Any]]:
    """What a deployed alarm watches: one metric, or those of its expression."""
    name = f"docprogress-local-{stack.outputs['apiId']}-{alarm}"
    (found,) = stack.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    if "Namespace" not in found:
        # The emulator forgets an expression, and with it its metrics.
        row = next(row for row in ALARMS if alarm.startswith(row.name))
        service = f"docprogress-local-{alarm.removeprefix(f'{row.name}-')}"
        return [
            {"namespace": row.namespace, "metric": metric, "dimensions": {"service": service}} for metric in row.metrics
        ]
    dimensions = {pair["Name"]: pair["Value"] for pair in found["Dimensions"]}
    return [{"namespace": found["Namespace"], "metric": found["MetricName"], "dimensions": dimensions}]


def counted(stack: Stack, alarm: str, metric: str) -> list[float]:
    """Every value of a metric under the name and the dimensions that the alarm watches."""
    (wanted,) = [each for each in watched(stack, alarm) if each["metric"] == metric]
    if wanted["namespace"] != OWN:
        now = datetime.datetime.now(datetime.UTC)
        points = stack.client("cloudwatch").get_metric_statistics(
            Namespace=wanted["namespace"],
            MetricName=metric,
            Dimensions=[{"Name": name, "Value": value} for name, value in wanted["dimensions"].items()],
            StartTime=now - datetime.timedelta(hours=1),
            EndTime=now + datetime.timedelta(minutes=5),
            Period=3600,
            Statistics=["Sum"],
        )["Datapoints"]
        return [point["Sum"] for point in points]
    return [value for line in embedded_metrics(stack, wanted) for value in as_list(line[metric])]


def embedded_metrics(stack: Stack, wanted: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The log lines out of which CloudWatch would take the metric."""
    for name in stack.outputs["functionNames"].values():
        for event in stack.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]:
            with contextlib.suppress(ValueError):
                line = json.loads(event["message"])
                for each in line.get("_aws", {}).get("CloudWatchMetrics", []):
                    declared = {metric["Name"] for metric in each["Metrics"]}
                    dimensions = [{name: line[name] for name in names} for names in each["Dimensions"]]
                    if (
                        each["Namespace"] == wanted["namespace"]
                        and wanted["metric"] in declared
                        and wanted["dimensions"] in dimensions
                    ):
                        yield line


def as_list(value: Any) -> list[float]:
    return value if isinstance(value, list) else [value]


def moves(stack: Stack, alarm: str, metric: str, fault: Callable[[], object]) -> bool:
    before = sum(counted(stack, alarm, metric))
    fault()
    return eventually(lambda: sum(counted(stack, alarm, metric)) > before)


@contextlib.contextmanager
def without_grant(stack: Stack, function: str, intent: str) -> Iterator[None]:
    iam = stack.client("iam")
    name = stack.outputs["functionNames"][function]
    role = stack.client("lambda").get_function_configuration(FunctionName=name)["Role"].rpartition("/")[2]
    taken = {
        each: json.dumps(iam.get_role_policy(RoleName=role, PolicyName=each)["PolicyDocument"])
        for each in iam.list_role_policies(RoleName=role)["PolicyNames"]
        if intent in each
    }
    assert taken, f"{role} has no grant for {intent}"
    for each in taken:
        iam.delete_role_policy(RoleName=role, PolicyName=each)
    try:
        yield
    finally:
        for each, document in taken.items():
            iam.put_role_policy(RoleName=role, PolicyName=each, PolicyDocument=document)


def invoke(stack: Stack, function: str) -> Any:
    return stack.client("lambda").invoke(FunctionName=stack.outputs["functionNames"][function], Payload=b"{}")


def test_every_alarm_is_tried_here_or_watches_what_the_emulator_does_not_count() -> None:
    tried = {"function-errors", "function-throttles", "documents-stalled", "ends-told-late", "documents-failed"}
    tried |= {"delivery-failed", "fan-out-slow", "metrics-stopped", "dead-letters"}
    not_counted = {row.name for row in ALARMS if row.namespace in (API_GATEWAY, DYNAMODB)}
    not_counted |= {"concurrency", "delivery-throttled", "events-dropped", "stream-late"}
    assert tried | not_counted == {row.name for row in ALARMS}
    assert not tried & not_counted


def test_a_function_that_raises_moves_function_errors(watched_stack: Stack) -> None:
    alarm = "function-errors-connection-handler"
    assert {each["namespace"] for each in watched(watched_stack, alarm)} == {LAMBDA}
    assert moves(watched_stack, alarm, "Errors", lambda: invoke(watched_stack, "connection-handler"))


def test_a_function_without_concurrency_moves_function_throttles(watched_stack: Stack) -> None:
    client, name = watched_stack.client("lambda"), watched_stack.outputs["connectionHandlerName"]

    def throttled() -> None:
        client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
        try:
            with pytest.raises(client.exceptions.TooManyRequestsException):
                invoke(watched_stack, "connection-handler")
        finally:
            client.delete_function_concurrency(FunctionName=name)

    assert moves(watched_stack, "function-throttles-connection-handler", "Throttles", throttled)


def test_a_worker_that_died_moves_documents_stalled(watched_stack: Stack) -> None:
    def died() -> None:
        put_silent_document(watched_stack, "died")
        invoke(watched_stack, "stall-watchdog")

    assert moves(watched_stack, "documents-stalled-stall-watchdog", "DocumentsStalled", died)


def test_a_watchdog_that_runs_reports_even_that_there_was_nothing(watched_stack: Stack) -> None:
    alarm, metric = "metrics-stopped-stall-watchdog", "DocumentsStalled"
    before = len(counted(watched_stack, alarm, metric))
    invoke(watched_stack, "stall-watchdog")
    assert eventually(lambda: len(counted(watched_stack, alarm, metric)) > before)


def test_a_worker_that_raises_moves_documents_failed(watched_stack: Stack) -> None:
    with without_grant(watched_stack, "documents-processor", "read-documents"):
        assert moves(
            watched_stack,
            "documents-failed-documents-processor",
            "DocumentsFailed",
            lambda: upload(watched_stack, "not-allowed", b"%PDF-"),
        )


def test_a_worker_that_may_not_post_moves_delivery_failed_and_the_time_is_counted(watched_stack: Stack) -> None:
    function = "documents-processor"
    with watched_stack.connect() as connection:
        ask(connection, action="progress", docId="untold")
        with without_grant(watched_stack, function, "manage-connections"):
            assert moves(
                watched_stack,
                f"delivery-failed-{function}",
                "MessagesFailed",
                lambda: upload(watched_stack, "untold", b"no pdf"),
            )
        assert counted(watched_stack, f"fan-out-slow-{function}", "FanOutTime")


def test_an_end_that_nobody_told_moves_ends_told_late(watched_stack: Stack) -> None:
    def died_after_the_last_write() -> None:
        put_silent_document(watched_stack, "ended")
        watched_stack.client("dynamodb").update_item(
            TableName=watched_stack.outputs["tableName"],
            Key={"pk": {"S": "DOCUMENT#ended"}, "sk": {"S": "STATE"}},
            UpdateExpression="SET #status = :complete",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues={":complete": {"S": "processing_complete"}},
        )
        invoke(watched_stack, "stall-watchdog")

    assert moves(watched_stack, "ends-told-late-stall-watchdog", "EndsToldLate", died_after_the_last_write)


def test_an_upload_that_is_given_up_is_a_message_in_the_queue_that_dead_letters_watches(watched_stack: Stack) -> None:
    (wanted,) = watched(watched_stack, "dead-letters")
    sqs, functions = watched_stack.client("sqs"), watched_stack.client("lambda")
    queue = {"QueueUrl": sqs.get_queue_url(QueueName=wanted["dimensions"]["QueueName"])["QueueUrl"]}
    processor = {"FunctionName": watched_stack.outputs["documentProcessorName"]}

    def waiting() -> int:
        name = "ApproximateNumberOfMessages"
        return int(sqs.get_queue_attributes(**queue, AttributeNames=[name])["Attributes"][name])

    assert wanted["metric"] == "ApproximateNumberOfMessagesVisible", "as SQS calls it in CloudWatch"
    before = waiting()
    kept = {"DestinationConfig": functions.get_function_event_invoke_config(**processor)["DestinationConfig"]}
    # Its retries come minutes later.
    functions.put_function_event_invoke_config(**processor, **kept, MaximumRetryAttempts=0)
    try:
        with without_grant(watched_stack, "documents-processor", "read-documents"):
            upload(watched_stack, "given-up", b"%PDF-")
            assert eventually(lambda: waiting() > before)
    finally:
        functions.put_function_event_invoke_config(**processor, **kept, MaximumRetryAttempts=2)
