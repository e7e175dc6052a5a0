"""The doctor, on a stack that is broken in every way that it can name.

Does not prove what only AWS does: writing access and execution logs, ending a function's update in failure. Those
answers are put in the emulator's place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, NoCredentialsError
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from local.doctor import document as documents
from local.doctor import legs
from local.doctor.command import NoOutputs, examine, patient_of
from local.doctor.finding import Finding, Patient, Status
from local.emulator import CREDENTIALS, REGION
from tests.local.conftest import DeployedStack
from tests.local.scenarios import ask, put_silent_document, receive, receive_to_the_end, upload

ROOT = Path(__file__).parents[2]
Stack = DeployedStack


def outputs_of(stack: Stack) -> dict[str, Any]:
    return {
        **stack.outputs,
        "awsEndpointUrl": stack.emulator.endpoint_url,
        "awsAccessKeyId": CREDENTIALS["AWS_ACCESS_KEY_ID"],
        "awsSecretAccessKey": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    }


@pytest.fixture
def patient(watched_stack: Stack) -> Patient:
    return patient_of(outputs_of(watched_stack))


def findings(patient: Patient, *, of: str, **options: Any) -> list[Finding]:
    return [each for each in examine(patient, **options) if each.check == of]


def worst(patient: Patient, *, of: str, **options: Any) -> Finding:
    order = [Status.OK, Status.WARNING, Status.FAULT]
    return max(findings(patient, of=of, **options), key=lambda each: order.index(each.status))


class Answering:
    """A client that answers some calls itself, as AWS would and the emulator cannot."""

    def __init__(self, client: Any, answers: dict[str, Any]) -> None:
        self._client = client
        self._answers = answers

    def __getattr__(self, name: str) -> Any:
        if name not in self._answers:
            return getattr(self._client, name)

        def answer(**_arguments: Any) -> Any:
            if isinstance(self._answers[name], Exception):
                raise self._answers[name]
            return self._answers[name]

        return answer


def answering(patient: Patient, service: str, **answers: Any) -> Patient:
    def client(wanted: str) -> Any:
        real = patient.client(wanted)
        return Answering(real, answers) if wanted == service else real

    return dataclasses.replace(patient, client=client)


# A stack that is well


def test_a_stack_that_is_well_has_no_fault_and_each_leg_is_timed(patient: Patient) -> None:
    found = list(examine(patient))
    assert [each for each in found if each.status is Status.FAULT] == []
    legs = {each.check: each.detail for each in found if each.check in ("name", "connection", "subscription", "post")}
    assert len(legs) == 4
    assert all(" ms" in detail for detail in legs.values())


def test_it_leaves_no_subscription_behind(watched_stack: Stack, patient: Patient) -> None:
    list(examine(patient))
    items = watched_stack.client("dynamodb").scan(TableName=watched_stack.outputs["tableName"])["Items"]
    assert [item for item in items if "doctor-" in item["pk"]["S"]] == []


def test_every_fault_and_warning_comes_with_a_cure(patient: Patient) -> None:
    blind = dataclasses.replace(patient, now=lambda: time.time() + 10_000)
    found = [each for each in examine(blind) if each.status is not Status.OK]
    assert found
    assert all(each.cure for each in found)


# Faults that the emulator can have


@contextlib.contextmanager
def stage_settings(stack: Stack, **settings: Any) -> Iterator[None]:
    client = stack.client("apigatewayv2")
    which = {"ApiId": stack.outputs["apiId"], "StageName": stack.outputs["stageName"]}
    before = client.get_stage(**which)["DefaultRouteSettings"]
    client.update_stage(**which, DefaultRouteSettings={**before, **settings})
    try:
        yield
    finally:
        client.update_stage(**which, DefaultRouteSettings=before)


def test_a_throttle_of_zero_is_a_fault(watched_stack: Stack, patient: Patient) -> None:
    with stage_settings(watched_stack, ThrottlingRateLimit=0.0):
        found = worst(patient, of="throttle")
    assert (found.status, "all routes" in found.detail) == (Status.FAULT, True)


def test_a_route_without_its_response_is_a_fault(watched_stack: Stack, patient: Patient) -> None:
    client, api_id = watched_stack.client("apigatewayv2"), watched_stack.outputs["apiId"]
    route = next(each for each in client.get_routes(ApiId=api_id)["Items"] if each["RouteKey"] == "progress")
    (response,) = client.get_route_responses(ApiId=api_id, RouteId=route["RouteId"])["Items"]
    client.delete_route_response(ApiId=api_id, RouteId=route["RouteId"], RouteResponseId=response["RouteResponseId"])
    try:
        found = worst(patient, of="routes")
    finally:
        client.create_route_response(ApiId=api_id, RouteId=route["RouteId"], RouteResponseKey="$default")
    assert (found.status, found.detail) == (
        Status.FAULT,
        "progress has no route response, so its answers are dropped",
    )


def test_a_function_whose_concurrency_is_zero_is_a_fault(watched_stack: Stack, patient: Patient) -> None:
    client, name = watched_stack.client("lambda"), watched_stack.outputs["connectionHandlerName"]
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    try:
        found = worst(patient, of="function connection-handler")
    finally:
        client.delete_function_concurrency(FunctionName=name)
    assert (found.status, name in found.cure) == (Status.FAULT, True)


@pytest.mark.parametrize(
    ("action", "policy"), [("ManageConnections", "manage-connections"), ("dynamodb", "in-progress")]
)
def test_a_grant_that_is_gone_is_a_fault(watched_stack: Stack, patient: Patient, action: str, policy: str) -> None:
    iam = watched_stack.client("iam")
    name = watched_stack.outputs["functionNames"]["documents-processor"]
    arn = watched_stack.client("lambda").get_function_configuration(FunctionName=name)["Role"]
    role = arn.rpartition("/")[2]
    taken = [each for each in iam.list_role_policies(RoleName=role)["PolicyNames"] if policy in each]
    documents_of = {each: iam.get_role_policy(RoleName=role, PolicyName=each)["PolicyDocument"] for each in taken}
    assert taken
    for each in taken:
        iam.delete_role_policy(RoleName=role, PolicyName=each)
    try:
        found = worst(patient, of="function documents-processor")
    finally:
        for each, policy_document in documents_of.items():
            iam.put_role_policy(RoleName=role, PolicyName=each, PolicyDocument=json.dumps(policy_document))
    assert (found.status, action in found.detail) == (Status.FAULT, True)


def test_a_function_that_is_not_there_is_a_fault(watched_stack: Stack) -> None:
    outputs = outputs_of(watched_stack)
    outputs["functionNames"] = {**outputs["functionNames"], "documents-processor": "gone"}
    found = worst(patient_of(outputs), of="function documents-processor")
    assert (found.status, found.detail) == (Status.FAULT, "gone is not there")


def test_a_watchdog_that_nobody_calls_is_a_fault(watched_stack: Stack, patient: Patient) -> None:
    events = watched_stack.client("events")
    (rule,) = [each["Name"] for each in events.list_rules()["Rules"] if "stall-watchdog" in each["Name"]]
    events.disable_rule(Name=rule)
    try:
        found = worst(patient, of="watchdog")
    finally:
        events.enable_rule(Name=rule)
    assert (found.status, found.cure) == (Status.FAULT, f"aws events enable-rule --name {rule}")


def test_a_table_that_forgets_nothing_is_a_warning(patient: Patient) -> None:
    # The tests turn the emulator's TTL off.
    assert worst(patient, of="expiry").status is Status.WARNING


def test_a_table_that_is_not_there_is_a_fault(watched_stack: Stack) -> None:
    found = worst(patient_of({**outputs_of(watched_stack), "tableName": "gone"}), of="table")
    assert (found.status, "DescribeTable failed" in found.detail) == (Status.FAULT, True)


def test_a_log_group_that_keeps_its_events_for_ever_is_a_warning(watched_stack: Stack, patient: Patient) -> None:
    logs = watched_stack.client("logs")
    group = f"/aws/lambda/{watched_stack.outputs['connectionHandlerName']}"
    logs.delete_retention_policy(logGroupName=group)
    try:
        found = worst(patient, of="retention")
    finally:
        logs.put_retention_policy(logGroupName=group, retentionInDays=30)
    assert (found.status, group in found.detail) == (Status.WARNING, True)


def test_a_log_group_that_is_not_there_is_a_fault(watched_stack: Stack) -> None:
    outputs = {**outputs_of(watched_stack), "functionNames": {"other": "never-made"}}
    found = worst(patient_of(outputs), of="retention")
    assert (found.status, "never-made is not there" in found.detail) == (Status.FAULT, True)


def test_an_alarm_that_rings_is_a_fault_with_what_to_do_first(watched_stack: Stack, patient: Patient) -> None:
    cloudwatch = watched_stack.client("cloudwatch")
    name = f"docprogress-local-{watched_stack.outputs['apiId']}-execution-errors"
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="a test")
    try:
        found = worst(patient, of="alarms")
    finally:
        cloudwatch.set_alarm_state(AlarmName=name, StateValue="OK", StateReason="a test")
    assert found.status is Status.FAULT
    assert found.detail.startswith(f"{name}: API Gateway cannot invoke a function")
    assert "execution log" in found.cure


def test_a_stack_without_alarms_is_a_warning(patient: Patient) -> None:
    class Pages:
        def paginate(self, **_arguments: Any) -> list[dict[str, Any]]:
            return [{"MetricAlarms": [{"AlarmName": "somebody-else-s", "StateValue": "ALARM"}]}]

    class CloudWatch:
        def get_paginator(self, _operation: str) -> Pages:
            return Pages()

    silent = dataclasses.replace(
        patient, client=lambda service: CloudWatch() if service == "cloudwatch" else patient.client(service)
    )
    found = worst(silent, of="alarms")
    assert (found.status, "alarmEmail" in found.cure) == (Status.WARNING, True), "whoever's it is, it is not ours"


def test_an_error_of_the_last_hour_is_a_warning_and_is_quoted(watched_stack: Stack, patient: Patient) -> None:
    name = watched_stack.outputs["connectionHandlerName"]
    watched_stack.client("lambda").invoke(FunctionName=name, Payload=b"{}")
    found = worst(patient, of="errors")
    assert found.status is Status.WARNING
    assert "connection-handler" in found.detail
    later = dataclasses.replace(patient, now=lambda: time.time() + 7200)
    assert worst(later, of="errors").status is Status.OK


@pytest.mark.parametrize(("calls", "expected"), [(100, Status.WARNING), (10_000, Status.OK)])
def test_a_large_share_of_cold_starts_is_a_warning(watched_stack: Stack, calls: int, expected: Status) -> None:
    outputs = {**outputs_of(watched_stack), "functionNames": {}, "connectionHandlerName": f"cold-{calls}"}
    del outputs["documentProcessorName"]
    logs, now = watched_stack.client("logs"), int(time.time() * 1000)
    group = {"logGroupName": f"/aws/lambda/cold-{calls}"}
    logs.create_log_group(**group)
    logs.create_log_stream(**group, logStreamName="stream")
    lines = [{"timestamp": now, "message": json.dumps({"message": "Cold start"})}] * 20
    logs.put_log_events(**group, logStreamName="stream", logEvents=lines)
    counted = {"Datapoints": [{"Sum": float(calls)}]}
    patient = answering(patient_of(outputs), "cloudwatch", get_metric_statistics=counted)
    found = worst(patient, of="cold starts")
    assert (found.status, f"20 of {calls} calls" in found.detail) == (expected, True)


def test_a_snapshot_that_nothing_calls_is_a_warning(stream_stack: Stack) -> None:
    patient = patient_of(outputs_of(stream_stack))
    assert findings(patient, of="snapshots") == []
    assert worst(patient, of="watchdog").status is Status.OK, "its rule calls the published version"
    client, name = stream_stack.client("lambda"), stream_stack.outputs["functionNames"]["stream-fan-out"]
    newest = client.publish_version(FunctionName=name)["Version"]
    try:
        (found,) = findings(patient, of="snapshots")
    finally:
        client.delete_function(FunctionName=name, Qualifier=newest)
    assert (found.status, "stream-fan-out: nothing calls version 1," in found.detail) == (Status.WARNING, True)
    (alias,) = client.list_aliases(FunctionName=name)["Aliases"]
    assert found.cure == (
        f"aws lambda delete-alias --function-name {name} --name {alias['Name']}"
        f" && aws lambda delete-function --function-name {name} --qualifier 1"
    )


# The legs of a message


@pytest.mark.parametrize(
    ("output", "value", "leg"),
    [
        ("websocketUrl", "wss://nowhere.invalid/live", "name"),
        ("websocketUrl", "ws://127.0.0.1:1/live", "connection"),
        ("tableName", "gone", "connection"),
    ],
)
def test_a_leg_that_breaks_is_named(watched_stack: Stack, output: str, value: str, leg: str) -> None:
    found = worst(patient_of({**outputs_of(watched_stack), output: value}), of=leg)
    assert (found.status, bool(found.cure)) == (Status.FAULT, True)


def test_an_api_that_is_not_there_is_a_connection_refused(watched_stack: Stack) -> None:
    outputs = outputs_of(watched_stack)
    url = outputs["websocketUrl"].replace(outputs["apiId"], "00000000")
    found = worst(patient_of({**outputs, "websocketUrl": url}), of="connection")
    assert found.status is Status.FAULT


def test_a_callback_url_of_another_stack_is_a_fault(watched_stack: Stack) -> None:
    outputs = outputs_of(watched_stack)
    wrong = outputs["callbackUrl"].replace(outputs["apiId"], "00000000")
    found = worst(patient_of({**outputs, "callbackUrl": wrong}), of="connection")
    assert (found.status, "PostToConnection failed" in found.detail) == (Status.FAULT, True)


def test_a_handler_that_fails_is_a_fault_of_the_connection(watched_stack: Stack, patient: Patient) -> None:
    client, name = watched_stack.client("lambda"), watched_stack.outputs["connectionHandlerName"]
    before = client.get_function_configuration(FunctionName=name)["Environment"]
    client.update_function_configuration(
        FunctionName=name, Environment={"Variables": {**before["Variables"], "TABLE_NAME": "gone"}}
    )
    try:
        found = worst(patient, of="connection")
    finally:
        client.update_function_configuration(FunctionName=name, Environment=before)
    assert found.status is Status.FAULT


def test_a_stack_that_takes_signatures_is_reached_with_one(iam_stack: Stack) -> None:
    found = {each.check: each.status for each in examine(patient_of(outputs_of(iam_stack)))}
    assert (found["connection"], found["post"]) == (Status.OK, Status.OK)


def test_a_stack_that_takes_tokens_is_reached_with_one_and_left_alone_without(jwt_stack: Stack) -> None:
    assert worst(patient_of(outputs_of(jwt_stack)), of="connection").status is Status.WARNING
    assert jwt_stack.issuer is not None
    with_token = patient_of(outputs_of(jwt_stack), token=jwt_stack.issuer.token())
    found = {each.check: each.status for each in examine(with_token)}
    assert (found["connection"], found["post"]) == (Status.OK, Status.OK)
    refused = worst(patient_of(outputs_of(jwt_stack), token="bad"), of="connection")
    assert (refused.status, "refused with" in refused.detail) == (Status.FAULT, True)


# Faults that only AWS has


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, Status.OK), (100, Status.WARNING), (-100, Status.WARNING), (301, Status.FAULT)]
)
def test_a_clock_that_is_wrong_is_said(patient: Patient, seconds: int, expected: Status) -> None:
    skewed = dataclasses.replace(patient, now=lambda: time.time() + seconds)
    assert worst(skewed, of="clock").status is expected


def test_an_account_without_a_role_for_logs_is_a_fault(patient: Patient) -> None:
    real = dataclasses.replace(answering(patient, "apigateway", get_account={}), emulated=False)
    found = worst(real, of="logging role")
    assert (found.status, "manageAccountLogging" in found.cure) == (Status.FAULT, True)


def test_an_integration_without_a_role_is_a_fault(patient: Patient) -> None:
    (integration,) = patient.client("apigatewayv2").get_integrations(ApiId=patient.outputs["apiId"])["Items"]
    without = {key: value for key, value in integration.items() if key != "CredentialsArn"}
    wrong = answering(patient, "apigatewayv2", get_integrations={"Items": [without]})
    assert worst(wrong, of="invoke role").status is Status.FAULT


def test_an_invoke_role_that_may_not_invoke_is_a_fault(watched_stack: Stack, patient: Patient) -> None:
    (role,) = [
        each["Arn"]
        for each in watched_stack.client("iam").list_roles()["Roles"]
        if "documents-processor" in each["RoleName"]
    ]
    (integration,) = patient.client("apigatewayv2").get_integrations(ApiId=patient.outputs["apiId"])["Items"]
    wrong = answering(patient, "apigatewayv2", get_integrations={"Items": [{**integration, "CredentialsArn": role}]})
    found = worst(wrong, of="invoke role")
    assert (found.status, "may not lambda:InvokeFunction" in found.detail) == (Status.FAULT, True)


@pytest.mark.parametrize(
    ("change", "check", "expected"),
    [
        ({"AccessLogSettings": {}}, "access log", Status.FAULT),
        ({"DefaultRouteSettings": {"LoggingLevel": "OFF"}, "RouteSettings": {}}, "execution log", Status.WARNING),
    ],
)
def test_a_stage_that_writes_no_logs_is_said(
    patient: Patient, change: dict[str, Any], check: str, expected: Status
) -> None:
    stage = patient.client("apigatewayv2").get_stage(
        ApiId=patient.outputs["apiId"], StageName=patient.outputs["stageName"]
    )
    assert worst(answering(patient, "apigatewayv2", get_stage={**stage, **change}), of=check).status is expected


def test_tokens_in_the_execution_log_are_a_warning(iam_stack: Stack) -> None:
    with stage_settings(iam_stack, DataTraceEnabled=True):
        assert worst(patient_of(outputs_of(iam_stack)), of="data trace").status is Status.WARNING


def test_a_route_that_is_missing_is_a_fault(patient: Patient) -> None:
    routes = patient.client("apigatewayv2").get_routes(ApiId=patient.outputs["apiId"])["Items"]
    left = [each for each in routes if each["RouteKey"] != "progress"]
    found = worst(answering(patient, "apigatewayv2", get_routes={"Items": left}), of="routes")
    assert (found.status, found.detail) == (Status.FAULT, "progress is missing")


def test_an_index_that_is_not_there_yet_is_a_fault(patient: Patient) -> None:
    table = patient.client("dynamodb").describe_table(TableName=patient.outputs["tableName"])["Table"]
    indexes = [{**each, "IndexStatus": "CREATING"} for each in table["GlobalSecondaryIndexes"]]
    building = answering(patient, "dynamodb", describe_table={"Table": {**table, "GlobalSecondaryIndexes": indexes}})
    found = worst(building, of="table")
    assert (found.status, "by_activity, by_connection" in found.detail) == (Status.FAULT, True)


PENDING = '{"status":"pending"}'
HERS = {"Items": [{"connection_id": {"S": "hers"}}]}


@pytest.mark.parametrize(
    ("answers", "rows", "leg", "detail"),
    [
        ([], HERS, "subscription", "no answer in"),
        (None, HERS, "subscription", "the connection was closed"),
        (['{"status":"error","errorCode":"INTERNAL_ERROR"}'], HERS, "subscription", "INTERNAL_ERROR"),
        ([PENDING], {"Items": []}, "post", "not in the table of the outputs"),
        ([PENDING], HERS, "post", "accepted, and not here after"),
        ([PENDING, '{"status":"chat"}'], HERS, "post", "something else arrived"),
    ],
)
def test_a_conversation_that_goes_wrong_is_a_fault_of_the_leg_that_does(
    patient: Patient,
    monkeypatch: pytest.MonkeyPatch,
    answers: list[str] | None,
    rows: dict[str, Any],
    leg: str,
    detail: str,
) -> None:
    monkeypatch.setattr(legs, "_PATIENCE_SECONDS", 0.5)

    def converse(connection: ServerConnection) -> None:
        connection.recv()
        for answer in answers or []:
            connection.send(answer)
        if answers is not None:
            with contextlib.suppress(ConnectionClosed):
                connection.recv()
                connection.send(PENDING)

    with serve(converse, "127.0.0.1", 0) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
            elsewhere = dataclasses.replace(patient, outputs={**patient.outputs, "websocketUrl": url})
            elsewhere = answering(elsewhere, "dynamodb", query=rows)
            elsewhere = answering(elsewhere, "apigatewaymanagementapi", post_to_connection={})
            (found,) = [each for each in legs.legs(elsewhere) if each.status is not Status.OK]
        finally:
            server.shutdown()
            serving.join()
    assert (found.check, found.status, detail in found.detail, bool(found.cure)) == (leg, Status.FAULT, True, True)


@pytest.mark.parametrize("change", [{"State": "Failed"}, {"LastUpdateStatus": "Failed"}])
def test_a_function_that_could_not_be_made_is_a_fault(patient: Patient, change: dict[str, str]) -> None:
    found = patient.client("lambda").get_function_configuration(
        FunctionName=patient.outputs["functionNames"]["stall-watchdog"]
    )
    broken = answering(patient, "lambda", get_function_configuration={**found, **change})
    assert worst(broken, of="function stall-watchdog").status is Status.FAULT


def test_what_the_role_may_not_look_at_is_a_warning_and_the_rest_is_looked_at(patient: Patient) -> None:
    denied = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "DescribeTable")
    found = list(examine(answering(patient, "dynamodb", describe_table=denied)))
    (table,) = [each for each in found if each.check == "table"]
    assert (table.status, table.cure) == (Status.WARNING, "let your role call DescribeTable")
    assert any(each.check == "post" for each in found)


def test_no_credentials_are_a_fault_and_no_stack_trace(patient: Patient) -> None:
    found = worst(answering(patient, "sts", get_caller_identity=NoCredentialsError()), of="clock")
    assert (found.status, "set AWS credentials" in found.cure) == (Status.FAULT, True)


# One document


def test_a_document_that_nobody_started_is_said(patient: Patient) -> None:
    found = worst(patient, of="document", document_id="never-heard-of")
    assert (found.status, "nobody has started it" in found.detail) == (Status.WARNING, True)


def test_a_document_whose_worker_is_silent_is_a_fault_and_can_be_ended(watched_stack: Stack, patient: Patient) -> None:
    put_silent_document(watched_stack, "silent", updated_at=int(time.time() * 1000))
    later = dataclasses.replace(patient, now=lambda: time.time() + 50)
    assert worst(patient, of="document", document_id="silent").status is Status.OK
    found = worst(later, of="document", document_id="silent")
    assert (found.status, "its worker is silent for 5" in found.detail) == (Status.FAULT, True)
    with watched_stack.connect() as connection:
        ask(connection, action="progress", docId="silent")
        assert worst(patient, of="end", document_id="silent", end_it=True).status is Status.OK
        assert receive_to_the_end(connection)[-1]["message"] == "Processing was stopped. It may be tried again."
    again = worst(patient, of="end", document_id="silent", end_it=True)
    assert (again.status, "is not being processed" in again.detail) == (Status.FAULT, True)


def test_a_document_shows_its_watchers_and_what_was_said_of_it(
    watched_stack: Stack, patient: Patient, tmp_path: Path
) -> None:
    with watched_stack.connect() as connection:
        ask(connection, action="progress", docId="looked-at")
        upload(watched_stack, "looked-at", b"no pdf")
        assert receive_to_the_end(connection)[-1]["status"] == "error"
        found = list(examine(patient, "looked-at"))
        assert {each.check for each in found} == {"document", "watchers", "said"}
        (watchers,) = [each for each in found if each.check == "watchers"]
        assert watchers.detail.startswith("1, such as connection ")
        assert any("Announced" in each.detail for each in found if each.check == "said")
        (retried,) = [each for each in examine(patient, "looked-at", retry_it=True) if each.check == "retry"]
        assert retried.status is Status.OK
        assert receive(connection)["status"] in ("processing_started", "error"), "a new run, which its watchers hear"


def test_a_retry_of_what_is_not_in_the_bucket_is_a_fault(watched_stack: Stack, patient: Patient) -> None:
    bucket = watched_stack.outputs["documentsBucket"]
    watched_stack.client("s3").put_object(Bucket=bucket, Key="never-uploaded.pdf.part", Body=b"another object")
    assert worst(patient, of="retry", document_id="never-uploaded", retry_it=True).status is Status.FAULT


def test_a_document_whose_id_has_a_suffix_is_put_again_under_its_id(watched_stack: Stack, patient: Patient) -> None:
    bucket = watched_stack.outputs["documentsBucket"]
    watched_stack.client("s3").put_object(Bucket=bucket, Key="kept.PDF", Body=b"no pdf")
    found = worst(patient, of="retry", document_id="kept.PDF", retry_it=True)
    assert (found.status, f"s3://{bucket}/kept.PDF was put again" in found.detail) == (Status.OK, True)


def test_an_id_with_a_quote_is_looked_for_to_the_letter(patient: Patient) -> None:
    assert list(documents.document('say "hello" \\')(patient))


# The command


def doctor(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "local", "doctor", *arguments]
    return subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_prints_findings_and_ends_with_0_where_there_is_no_fault(watched_stack: Stack) -> None:
    done = doctor("--outputs", "-", "--json", given=json.dumps(outputs_of(watched_stack)))
    found = json.loads(done.stdout)
    assert {"check", "status", "detail", "cure"} == set(found[0])
    assert done.returncode == 0, found


def test_the_command_ends_with_1_on_a_fault_and_prints_the_cure_below_it(watched_stack: Stack) -> None:
    outputs = {**outputs_of(watched_stack), "websocketUrl": "ws://127.0.0.1:1/live"}
    done = doctor("--outputs", "-", given=json.dumps(outputs))
    assert done.returncode == 1
    assert "\nfault     connection: cannot connect to ws://127.0.0.1:1/live" in done.stdout
    assert "\n          -> is the stack up" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "given", "message"),
    [
        (["--outputs", "/nowhere.json"], "", "cannot read /nowhere.json"),
        (["--outputs", "-"], "no json", "the outputs are no JSON"),
        (["--outputs", "-"], "[]", "no JSON object"),
        (["--outputs", "-"], "{}", "websocketUrl, callbackUrl, apiId, stageName, tableName is missing"),
        (["--outputs", "-", "--end"], "{}", "name it with --document"),
    ],
)
def test_the_command_ends_with_2_where_there_is_nothing_to_look_at(
    arguments: list[str], given: str, message: str
) -> None:
    done = doctor(*arguments, given=given)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_the_region_is_that_of_the_url() -> None:
    host = "https://a1.execute-api.eu-central-1.amazonaws.com/live"
    outputs = {"websocketUrl": host, "callbackUrl": host, "apiId": "a1", "stageName": "live", "tableName": "t"}
    assert patient_of(outputs).region == "eu-central-1"
    assert patient_of({**outputs, "callbackUrl": "http://127.0.0.1:1/live"}).region == REGION
    own_name = {"callbackUrl": "https://live.example.com", "workerPolicy": '["arn:aws:dynamodb:eu-west-3:1:table/t"]'}
    assert patient_of({**outputs, **own_name}).region == "eu-west-3"
    with pytest.raises(NoOutputs, match="tableName is missing"):
        patient_of({**outputs, "tableName": ""})


@pytest.mark.parametrize(
    ("output", "value", "message"),
    [
        ("websocketUrl", 7, "websocketUrl is no text"),
        ("awsEndpointUrl", ["http://127.0.0.1:1"], "awsEndpointUrl is no text"),
        ("functionNames", "handler", "functionNames is no object"),
        ("callbackUrl", "http://[", "callbackUrl is 'http://\\['"),
    ],
)
def test_outputs_that_are_of_another_form_are_refused(output: str, value: object, message: str) -> None:
    outputs = dict.fromkeys(("websocketUrl", "callbackUrl", "apiId", "stageName", "tableName"), "text")
    with pytest.raises(NoOutputs, match=message):
        patient_of({**outputs, output: value})


def test_a_url_that_is_none_is_a_fault_and_no_stack_trace(watched_stack: Stack) -> None:
    found = worst(patient_of({**outputs_of(watched_stack), "websocketUrl": "text"}), of="connection")
    assert (found.status, bool(found.cure)) == (Status.FAULT, True)
