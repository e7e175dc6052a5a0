"""The checks of how a stack is set up: nothing here is called through it, everything is read or simulated."""

import datetime
import email.utils
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .finding import Check, Finding, Patient, fault, ok, warning

_LOOK_BACK_SECONDS = 3600
# AWS refuses a signature that is more than five minutes old.
_SKEW_SECONDS = 300
# Below, one sandbox of the morning is a large share; above, pages notice.
_CALLS_THAT_TELL = 100
_COLD_SHARE_PERCENT = 10
_REPLYING_ROUTES = ("$default", "progress")
_LIFECYCLE_ROUTES = ("$connect", "$disconnect")
# Each function that knows the table may do one of these at least.
_TABLE_ACTIONS = ("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem")
# What was changed by hand is found by --refresh alone.
_DEPLOY = "pulumi up --refresh"


def clock(patient: Patient) -> Iterator[Finding]:
    answer = patient.client("sts").get_caller_identity()
    theirs = email.utils.parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()
    seconds = patient.now() - theirs
    detail = f"this machine is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} AWS"
    if abs(seconds) >= _SKEW_SECONDS:
        yield fault("clock", f"{detail}: AWS refuses its signatures", "set the clock: timedatectl set-ntp true")
    elif abs(seconds) > _SKEW_SECONDS / 5:
        yield warning("clock", detail, "set the clock: timedatectl set-ntp true")
    else:
        yield ok("clock", f"{detail}, as {answer['Arn']}")


def stage(patient: Patient) -> Iterator[Finding]:
    api_id, name = patient.outputs["apiId"], patient.outputs["stageName"]
    found = patient.client("apigatewayv2").get_stage(ApiId=api_id, StageName=name)
    settings = {"all routes": found.get("DefaultRouteSettings") or {}, **(found.get("RouteSettings") or {})}
    stopped = [
        route
        for route, each in settings.items()
        if not each.get("ThrottlingRateLimit") or not each.get("ThrottlingBurstLimit")
    ]
    if stopped:
        yield fault("throttle", f"{', '.join(stopped)}: throttled to 0, so everyone gets 429", _DEPLOY)
    else:
        general = settings["all routes"]
        rate, burst = general["ThrottlingRateLimit"], general["ThrottlingBurstLimit"]
        yield ok("throttle", f"{rate:g} requests/s, {burst} at once")
    if not found.get("AccessLogSettings", {}).get("DestinationArn"):
        yield fault("access log", "the stage writes none: a refused connection leaves no trace", _DEPLOY)
    else:
        yield ok("access log", found["AccessLogSettings"]["DestinationArn"].partition("log-group:")[2])
    traced = any(each.get("DataTraceEnabled") for each in settings.values())
    if traced and _connect_route(patient).get("AuthorizationType", "NONE") != "NONE":
        yield warning(
            "data trace", "tokens are written into the execution log", "pulumi config set dataTraceEnabled false"
        )
    if all(each.get("LoggingLevel", "OFF") == "OFF" for each in settings.values()):
        yield warning("execution log", "off: an ExecutionError leaves no trace", "pulumi config set loggingLevel ERROR")


def routes(patient: Patient) -> Iterator[Finding]:
    client, api_id = patient.client("apigatewayv2"), patient.outputs["apiId"]
    found = {each["RouteKey"]: each for each in client.get_routes(ApiId=api_id)["Items"]}
    if missing := {*_REPLYING_ROUTES, *_LIFECYCLE_ROUTES} - found.keys():
        yield fault("routes", f"{', '.join(sorted(missing))} is missing", _DEPLOY)
        return
    silent = [
        key
        for key in _REPLYING_ROUTES
        if not found[key].get("RouteResponseSelectionExpression")
        or not client.get_route_responses(ApiId=api_id, RouteId=found[key]["RouteId"])["Items"]
    ]
    if silent:
        yield fault("routes", f"{', '.join(silent)} has no route response, so its answers are dropped", _DEPLOY)
    else:
        yield ok("routes", f"{len(found)}, and those that answer have their route response")


def invoke_role(patient: Patient) -> Iterator[Finding]:
    integrations = patient.client("apigatewayv2").get_integrations(ApiId=patient.outputs["apiId"])["Items"]
    for integration in integrations:
        function_arn = _function_arn(integration)
        name = function_arn.split(":")[6]
        role = integration.get("CredentialsArn")
        if role is None:
            yield fault("invoke role", f"API Gateway has no role to invoke {name} with", _DEPLOY)
            continue
        yield from _may(patient, "invoke role", role, ["lambda:InvokeFunction"], function_arn, "API Gateway")


def _function_arn(integration: Mapping[str, Any]) -> str:
    return str(integration["IntegrationUri"].partition("/functions/")[2].removesuffix("/invocations"))


def functions(patient: Patient) -> Iterator[Finding]:
    client = patient.client("lambda")
    for name, physical_name in patient.functions.items():
        check = f"function {name}"
        try:
            found = client.get_function_configuration(FunctionName=physical_name)
        except client.exceptions.ResourceNotFoundException:
            yield fault(check, f"{physical_name} is not there", _DEPLOY)
            continue
        reserved = client.get_function_concurrency(FunctionName=physical_name).get("ReservedConcurrentExecutions")
        if reserved == 0:
            yield fault(
                check,
                "its concurrency is reserved to 0, so every call is throttled",
                f"aws lambda delete-function-concurrency --function-name {physical_name}",
            )
        elif found.get("State", "Active") not in ("Active", "Inactive"):
            yield fault(check, f"its state is {found['State']}: {found.get('StateReason', '')}", _DEPLOY)
        elif found.get("LastUpdateStatus") == "Failed":
            yield fault(check, f"its last update failed: {found.get('LastUpdateStatusReason', '')}", _DEPLOY)
        else:
            yield ok(check, f"active, {found['MemorySize']} MB, {found['Timeout']} s")
            yield from _grants(patient, check, found)


def _grants(patient: Patient, check: str, function: Mapping[str, Any]) -> Iterator[Finding]:
    """A function that has the table's or the connections' address in its environment must be able to use it."""
    variables = function.get("Environment", {}).get("Variables", {})
    _, partition, _, region, account, *_ = function["FunctionArn"].split(":")
    if variables.get("TABLE_NAME"):
        table = f"arn:{partition}:dynamodb:{region}:{account}:table/{variables['TABLE_NAME']}"
        if not any(allowed for _, allowed in _simulated(patient, function["Role"], _TABLE_ACTIONS, table)):
            yield fault(check, f"it may do nothing in {table} as {function['Role']}", _DEPLOY)
    if variables.get("CALLBACK_URL"):
        api_id, stage_name = patient.outputs["apiId"], patient.outputs["stageName"]
        connection = f"arn:{partition}:execute-api:{region}:{account}:{api_id}/{stage_name}/POST/@connections/doctor"
        yield from _may(patient, check, function["Role"], ["execute-api:ManageConnections"], connection, "it")


def _may(patient: Patient, check: str, role: str, actions: Sequence[str], resource: str, who: str) -> Iterator[Finding]:
    denied = [action for action, allowed in _simulated(patient, role, actions, resource) if not allowed]
    if denied:
        yield fault(check, f"{who} may not {', '.join(denied)} on {resource} as {role}", _DEPLOY)
    else:
        yield ok(check, f"{who} may {', '.join(actions)}")


def _simulated(patient: Patient, role: str, actions: Sequence[str], resource: str) -> list[tuple[str, bool]]:
    answer = patient.client("iam").simulate_principal_policy(
        PolicySourceArn=role, ActionNames=list(actions), ResourceArns=[resource]
    )
    # What depends on a value that only a real call has cannot be simulated, and is no denial.
    return [
        (each["EvalActionName"], each["EvalDecision"] == "allowed" or bool(each.get("MissingContextValues")))
        for each in answer["EvaluationResults"]
    ]


def table(patient: Patient) -> Iterator[Finding]:
    client, name = patient.client("dynamodb"), patient.outputs["tableName"]
    found = client.describe_table(TableName=name)["Table"]
    indexes = {each["IndexName"]: each.get("IndexStatus", "ACTIVE") for each in found.get("GlobalSecondaryIndexes", [])}
    not_ready = [index for index in ("by_activity", "by_connection") if indexes.get(index) != "ACTIVE"]
    if found["TableStatus"] not in ("ACTIVE", "UPDATING") or not_ready:
        yield fault("table", f"{name} is {found['TableStatus']}; not ready: {', '.join(not_ready) or 'none'}", _DEPLOY)
    else:
        yield ok("table", f"{name} and its indexes are active")
    ttl = client.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    if ttl.get("TimeToLiveStatus") not in ("ENABLED", "ENABLING") or ttl.get("AttributeName") != "expires_at":
        yield warning("expiry", "the table's TTL is off, so old rows stay and are paid for", _DEPLOY)


def watchdog(patient: Patient) -> Iterator[Finding]:
    name = patient.functions.get("stall-watchdog")
    if name is None:
        return
    events, functions = patient.client("events"), patient.client("lambda")
    called = [functions.get_function_configuration(FunctionName=name)["FunctionArn"]]
    # With snapStart, a published version is called.
    called += [each["AliasArn"] for each in functions.list_aliases(FunctionName=name)["Aliases"]]
    names = [rule for arn in called for rule in events.list_rule_names_by_target(TargetArn=arn)["RuleNames"]]
    rules = [events.describe_rule(Name=rule) for rule in names]
    if not rules:
        yield fault("watchdog", "no rule calls it, so a document whose worker died never ends", _DEPLOY)
    elif all(rule["State"] == "DISABLED" for rule in rules):
        yield fault(
            "watchdog",
            "its rule is disabled, so a document whose worker died never ends",
            f"aws events enable-rule --name {rules[0]['Name']}",
        )
    else:
        yield ok("watchdog", f"called at {rules[0]['ScheduleExpression']}")


def logging_role(patient: Patient) -> Iterator[Finding]:
    role = patient.client("apigateway").get_account().get("cloudwatchRoleArn")
    if patient.emulated:
        return
    if not role:
        yield fault(
            "logging role",
            "the account has no role for the logs of API Gateway, so none are written",
            "pulumi config set manageAccountLogging true && pulumi up",
        )
    else:
        yield ok("logging role", role)


def retention(patient: Patient) -> Iterator[Finding]:
    logs = patient.client("logs")
    for name in log_groups(patient):
        groups = logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]
        found = next((each for each in groups if each["logGroupName"] == name), None)
        if found is None:
            yield fault("retention", f"{name} is not there: its function cannot write", _DEPLOY)
        elif "retentionInDays" not in found:
            yield warning("retention", f"{name} keeps its events for ever, and they are paid for", _DEPLOY)
    yield ok("retention", f"{len(log_groups(patient))} log groups looked at")


def alarms(patient: Patient) -> Iterator[Finding]:
    """Those that watch this stack: their names have its API in them."""
    api_id = patient.outputs["apiId"]
    pages = patient.client("cloudwatch").get_paginator("describe_alarms").paginate(AlarmTypes=["MetricAlarm"])
    ours = [each for page in pages for each in page["MetricAlarms"] if api_id in each["AlarmName"]]
    ringing = [each for each in ours if each["StateValue"] == "ALARM"]
    for each in ringing:
        what, _, first = each.get("AlarmDescription", "").partition(" First: ")
        yield fault("alarms", f"{each['AlarmName']}: {what}", first or "docs/operations.md")
    if not ours:
        yield warning("alarms", "none is deployed: nobody is told", "pulumi config set alarmEmail on-call@example.com")
    elif not ringing:
        yield ok("alarms", f"{len(ours)}, none of them rings")


def recent_errors(patient: Patient) -> Iterator[Finding]:
    since = int((patient.now() - _LOOK_BACK_SECONDS) * 1000)
    count, newest = 0, (0, "", "")
    for name, function in patient.functions.items():
        for event in log_events(patient, f"/aws/lambda/{function}", since, "ERROR"):
            count += 1
            newest = max(newest, (event["timestamp"], name, event["message"].strip()))
    if count:
        _, name, message = newest
        yield warning(
            "errors",
            f"{count} in the last hour; newest, {name}: {said(message)}",
            f"its log: {patient.functions[name]}",
        )
    else:
        yield ok("errors", "none in the last hour")


def cold_starts(patient: Patient) -> Iterator[Finding]:
    """Of the last hour: a sandbox writes a line when it starts, and Lambda counts the calls."""
    now = datetime.datetime.fromtimestamp(patient.now(), datetime.UTC)
    for name, function in patient.functions.items():
        since = now - datetime.timedelta(seconds=_LOOK_BACK_SECONDS)
        points = patient.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/Lambda",
            MetricName="Invocations",
            Dimensions=[{"Name": "FunctionName", "Value": function}],
            StartTime=since,
            EndTime=now,
            Period=_LOOK_BACK_SECONDS,
            Statistics=["Sum"],
        )["Datapoints"]
        calls = sum(point["Sum"] for point in points)
        colds = len(log_events(patient, f"/aws/lambda/{function}", int(since.timestamp() * 1000), '"Cold start"'))
        if calls >= _CALLS_THAT_TELL:
            share = 100 * colds / calls
            detail = f"{name}: {colds} of {calls:.0f} calls, {share:.0f} %"
            if share > _COLD_SHARE_PERCENT:
                yield warning("cold starts", detail, "pulumi config set snapStart true shortens them")
            else:
                yield ok("cold starts", detail)


def snapshots(patient: Patient) -> Iterator[Finding]:
    """Each published version has one, with snapStart, which is charged until the version is deleted."""
    client = patient.client("lambda")
    integrations = patient.client("apigatewayv2").get_integrations(ApiId=patient.outputs["apiId"])["Items"]
    # arn:…:function:NAME and, where a published version is called, :ALIAS
    are_called = any(_function_arn(each).count(":") > 6 for each in integrations)
    for name, function in patient.functions.items():
        pages = client.get_paginator("list_versions_by_function").paginate(FunctionName=function)
        found = [each for page in pages for each in page["Versions"]]
        versions = [each["Version"] for each in found if each.get("SnapStart", {}).get("OptimizationStatus") == "On"]
        idle = sorted(versions, key=int)[: -1 if are_called else None]
        if idle:
            aliases = client.list_aliases(FunctionName=function, FunctionVersion=idle[0])["Aliases"]
            yield warning(
                "snapshots",
                f"{name}: nothing calls version {', '.join(idle)}, and each has a snapshot, which is charged",
                " && ".join(
                    [
                        *(f"aws lambda delete-alias --function-name {function} --name {a['Name']}" for a in aliases),
                        f"aws lambda delete-function --function-name {function} --qualifier {idle[0]}",
                    ]
                ),
            )


def log_events(patient: Patient, group: str, since_ms: int, pattern: str) -> list[dict[str, Any]]:
    """At most the first thousand; a group that is not there has none."""
    logs = patient.client("logs")
    try:
        pages = logs.get_paginator("filter_log_events").paginate(
            logGroupName=group,
            startTime=since_ms,
            filterPattern=pattern,
            PaginationConfig={"MaxItems": 1000},
        )
        return [event for page in pages for event in page["events"]]
    except logs.exceptions.ResourceNotFoundException:
        return []


def said(line: str) -> str:
    """A log line as a person reads it: its message, where it is one of JSON."""
    try:
        parsed = json.loads(line)
    except ValueError:
        return line[:200]
    if not isinstance(parsed, dict):
        return line[:200]
    return str(parsed.get("message") or parsed.get("errorMessage") or line)[:200]


def log_groups(patient: Patient) -> list[str]:
    stage_name = patient.outputs["stageName"]
    return [
        f"/aws/apigateway/{patient.outputs['apiId']}/{stage_name}",
        *(f"/aws/lambda/{name}" for name in patient.functions.values()),
    ]


def _connect_route(patient: Patient) -> Mapping[str, Any]:
    items = patient.client("apigatewayv2").get_routes(ApiId=patient.outputs["apiId"])["Items"]
    return next((each for each in items if each["RouteKey"] == "$connect"), {})


SETTINGS: dict[str, Check] = {
    "clock": clock,
    "stage": stage,
    "routes": routes,
    "invoke role": invoke_role,
    "functions": functions,
    "table": table,
    "watchdog": watchdog,
    "logging role": logging_role,
    "retention": retention,
    "alarms": alarms,
    "errors": recent_errors,
    "cold starts": cold_starts,
    "snapshots": snapshots,
}
