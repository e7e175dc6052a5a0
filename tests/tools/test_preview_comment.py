"""The comment of a preview: over recordings of the real engine, and over steps made up where a recording is too kind.

The recordings are previews of this program on an emulator, without source positions and stack traces. Not proved here:
that GitHub takes the comment, and that the workflow posts it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.preview_comment import MARKER, comment, data_at_stake, new_rights, parse, read_changes, url_changes

ROOT = Path(__file__).parents[2]
RECORDINGS = sorted((Path(__file__).parent / "previews").glob("*.json"))
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


def recorded(name: str) -> dict[str, Any]:
    preview: dict[str, Any] = json.loads((Path(__file__).parent / "previews" / f"{name}.json").read_text())
    return preview


def step(op: str, type_: str, *, name: str = "it", old: Any = None, new: Any = None, **fields: Any) -> dict[str, Any]:
    """A step as the engine gives it; old and new are inputs, and `state` holds what else the old state says."""
    state = fields.pop("state", {})
    made: dict[str, Any] = {"op": op, "urn": f"urn:pulumi:dev::docprogress::{type_}::{name}", **fields}
    if op != "create":
        made["oldState"] = {"type": type_, "custom": True, "inputs": old or {}, **state}
    if op != "delete":
        made["newState"] = {"type": type_, "custom": True, "inputs": new or {}}
    return made


def preview(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"steps": list(steps), "changeSummary": {}}


def lines(group: Any, *steps: dict[str, Any]) -> list[str]:
    return list(group(read_changes(preview(*steps))))


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def rights(old: str | None, new: str) -> list[str]:
    inputs = {} if old is None else {"policy": old}
    made = step("update" if inputs else "create", "aws:iam/rolePolicy:RolePolicy", old=inputs, new={"policy": new})
    return lines(new_rights, made)


# --- recordings ---


def test_a_replaced_table_is_data_at_stake_and_says_which_property_forces_it() -> None:
    changes = read_changes(recorded("table-replaced"))
    assert list(data_at_stake(changes)) == ["**replaced** `progress-table` (Table): `rangeKey` `sk` → `sort`"]
    assert list(url_changes(changes)) == []


def test_turning_sign_in_and_pipeline_off_names_every_account_document_and_url_that_goes() -> None:
    changes = read_changes(recorded("all-removed"))
    assert list(data_at_stake(changes)) == [
        "**deleted** `documents-bucket` (Bucket)",
        "**deleted** `users-pool` (UserPool)",
        "**deleted** `documents-processor-logs` (LogGroup)",
        "**deleted** `token-authorizer-logs` (LogGroup)",
        "**deleted** `uploads-access-logs` (LogGroup)",
        "**deleted** `uploads-presigner-logs` (LogGroup)",
    ]
    assert list(url_changes(changes)) == [
        "**deleted** `uploads-api` (Api)",
        "**deleted** `users-client` (UserPoolClient)",
        "**deleted** `users-domain` (UserPoolDomain)",
    ]
    assert list(new_rights(changes)) == ["`api-$connect-route` (Route): anyone may call it: no authorization"]


def test_a_renamed_stage_changes_the_url() -> None:
    changes = read_changes(recorded("stage-renamed"))
    assert list(url_changes(changes)) == ["**replaced** `api-stage` (Stage): `name` `dev` → `v2`"]


def test_only_what_a_policy_adds_is_a_new_right() -> None:
    assert list(new_rights(read_changes(recorded("rights-widened")))) == [
        "`connection-handler-keep-connections-in-progress` (RolePolicy): allows `dynamodb:*`, `s3:GetObject` on"
        " `arn:aws:dynamodb:us-east-1:<account>:table/progress-table-33618fe` (**wildcard**)"
    ]


def test_logs_that_are_kept_for_a_shorter_time_are_data_at_stake() -> None:
    found = list(data_at_stake(read_changes(recorded("stream-and-shorter-logs"))))
    assert len(found) == 8
    assert "**updated** `api-access-logs` (LogGroup): `retentionInDays` `30` → `7`" in found


def test_a_policy_that_the_preview_cannot_know_is_named_with_what_it_is_about() -> None:
    found = list(new_rights(read_changes(recorded("stream-and-shorter-logs"))))
    assert (
        "`stream-fan-out-read-stream-of-progress` (RolePolicy): a new `policy`, known only after the deployment; it"
        " names `progress-table`, `stream-fan-out-role`" in found
    )
    assert (
        "`api-account-logging-account` (Account): **created** the role that writes the logs of every API in the account"
        " and region" in found
    )


def test_a_preview_that_failed_says_so_first_and_shows_what_it_knew() -> None:
    text = comment(recorded("protected"), stack="dev")
    assert text.index("**The preview failed.**") < text.index("#### Data at stake")
    assert "because it is protected" in text
    assert "**deleted** `documents-bucket` (Bucket)" in text


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_the_comment_counts_every_resource_and_shows_no_account(path: Path) -> None:
    preview_ = json.loads(path.read_text())
    text = comment(preview_, stack="dev")
    counted = sum(int(part.split()[0]) for part in text.rsplit("\n\n", 1)[-1].split(", "))
    assert counted == sum(preview_["changeSummary"].values())
    assert "000000000000" not in text
    assert text.startswith(MARKER)


# --- data ---


@pytest.mark.parametrize(
    "type_",
    [
        "aws:dynamodb/table:Table",
        "aws:s3/bucket:Bucket",
        "aws:s3/bucketV2:BucketV2",
        "aws:s3/bucketObjectv2:BucketObjectv2",
        "aws:kms/key:Key",
        "aws:sqs/queue:Queue",
        "aws:rds/instance:Instance",
        "mongodbatlas:index/cluster:Cluster",
    ],
)
@pytest.mark.parametrize("op", ["delete", "replace", "delete-replaced", "create-replacement"])
def test_what_may_hold_data_is_named_when_it_goes(type_: str, op: str) -> None:
    assert len(lines(data_at_stake, step(op, type_))) == 1


@pytest.mark.parametrize(
    "type_",
    [
        "aws:lambda/function:Function",
        "aws:iam/role:Role",
        "aws:cloudwatch/eventRule:EventRule",
        "aws:cloudwatch/metricAlarm:MetricAlarm",
        "aws:s3/bucketNotification:BucketNotification",
        "aws:sqs/queuePolicy:QueuePolicy",
        "pulumi:providers:aws",
    ],
)
def test_what_is_made_anew_without_loss_is_only_counted(type_: str) -> None:
    assert lines(data_at_stake, step("delete", type_)) == []


def test_a_component_holds_nothing_itself() -> None:
    made = step("delete", "team:storage:Archive", state={"custom": False})
    assert lines(data_at_stake, made) == []


def test_the_steps_of_a_replacement_are_one_change() -> None:
    table = "aws:dynamodb/table:Table"
    steps = [step(op, table) for op in ("create-replacement", "replace", "delete-replaced")]
    assert lines(data_at_stake, *steps) == ["**replaced** `it` (Table)"]


def test_a_deletion_that_leaves_the_thing_in_the_account_says_so() -> None:
    (line,) = lines(data_at_stake, step("delete", "aws:s3/bucket:Bucket", state={"retainOnDelete": True}))
    assert "it stays in the account" in line


@pytest.mark.parametrize("op", ["update", "same"])
def test_losing_the_protection_is_named_before_the_deletion_that_it_allows(op: str) -> None:
    (line,) = lines(data_at_stake, step(op, "aws:dynamodb/table:Table", state={"protect": True}))
    assert line.startswith("**unprotected** `it` (Table)")


@pytest.mark.parametrize("key", ["ttl", "ttl.enabled", "pointInTimeRecovery.enabled", "deletionProtectionEnabled"])
def test_an_update_of_what_guards_the_data_is_named(key: str) -> None:
    assert len(lines(data_at_stake, step("update", "aws:dynamodb/table:Table", diffReasons=[key]))) == 1
    assert lines(data_at_stake, step("update", "aws:dynamodb/table:Table", diffReasons=["tags"])) == []


def test_the_guard_of_a_bucket_is_named_unless_its_bucket_goes_too() -> None:
    guard = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
    bucket = step("delete", "aws:s3/bucket:Bucket", name="bucket")
    belongs = {"propertyDependencies": {"bucket": [bucket["urn"]]}}
    assert lines(data_at_stake, step("delete", guard, state=belongs)) == ["**deleted** `it` (BucketPublicAccessBlock)"]
    assert lines(data_at_stake, step("delete", guard, state=belongs), bucket) == ["**deleted** `bucket` (Bucket)"]


# --- URLs ---


@pytest.mark.parametrize(
    ("type_", "key", "named"),
    [
        ("aws:apigatewayv2/domainName:DomainName", "domainNameConfiguration", 1),
        ("aws:apigatewayv2/api:Api", "disableExecuteApiEndpoint", 1),
        ("aws:apigatewayv2/route:Route", "routeKey", 1),
        ("aws:route53/record:Record", "records", 1),
        ("aws:apigatewayv2/api:Api", "description", 0),
        ("aws:apigatewayv2/stage:Stage", "deploymentId", 0),
    ],
)
def test_an_update_is_named_if_it_moves_a_url(type_: str, key: str, named: int) -> None:
    assert len(lines(url_changes, step("update", type_, diffReasons=[key]))) == named


def test_the_stage_of_a_deleted_api_is_not_named_beside_it() -> None:
    api = step("delete", "aws:apigatewayv2/api:Api", name="api")
    stage = step("delete", "aws:apigatewayv2/stage:Stage", state={"propertyDependencies": {"apiId": [api["urn"]]}})
    assert lines(url_changes, api, stage) == ["**deleted** `api` (Api)"]
    assert len(lines(url_changes, stage)) == 1


# --- rights ---


def test_rights_that_stay_are_not_new_however_the_policy_is_written() -> None:
    before = policy({"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": "arn:a"})
    after = policy(
        {"Effect": "Allow", "Action": "s3:PutObject", "Resource": ["arn:a"]},
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": ["arn:a"]},
    )
    assert rights(before, after) == []


def test_a_condition_that_is_dropped_is_a_new_right() -> None:
    guarded = {
        "Effect": "Allow",
        "Action": "s3:*",
        "Resource": "*",
        "Condition": {"Bool": {"aws:SecureTransport": "true"}},
    }
    free = {key: value for key, value in guarded.items() if key != "Condition"}
    assert rights(policy(guarded), policy(free)) == ["`it` (RolePolicy): allows `s3:*` on `*` (**wildcard**)"]


def test_a_denial_that_is_dropped_is_a_new_right() -> None:
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:a"}
    (line,) = rights(policy(deny), policy())
    assert "no longer denies `s3:*` on `arn:a` to `*`" in line


def test_everything_but_a_few_actions_is_shown_as_a_wildcard() -> None:
    (line,) = rights(None, policy({"Effect": "Allow", "NotAction": "iam:*", "Resource": "arn:a"}))
    assert line.endswith("allows `everything but iam:*` on `arn:a` (**wildcard**)")


@pytest.mark.parametrize("value", [UNKNOWN, "[secret]"])
def test_a_policy_that_cannot_be_read_is_never_passed_over(value: str) -> None:
    (line,) = rights(policy(), value)
    assert "a new `policy`, known only after the deployment" in line


def test_a_role_that_others_may_assume_is_a_new_right() -> None:
    trust = policy({"Effect": "Allow", "Principal": {"AWS": "arn:b"}, "Action": "sts:AssumeRole"})
    made = step("update", "aws:iam/role:Role", old={"assumeRolePolicy": policy()}, new={"assumeRolePolicy": trust})
    assert lines(new_rights, made) == ["`it` (Role): allows `sts:AssumeRole` to `arn:b`"]


def test_a_policy_within_a_role_or_of_any_other_resource_is_read_too() -> None:
    allowed = policy({"Effect": "Allow", "Action": "sns:Publish", "Resource": "arn:c"})
    for type_, inputs in (
        ("aws:iam/role:Role", {"inlinePolicies": [{"name": "p", "policy": allowed}]}),
        ("aws:sns/topicPolicy:TopicPolicy", {"policy": json.loads(allowed)}),
    ):
        (line,) = lines(new_rights, step("create", type_, new=inputs))
        assert line.endswith("allows `sns:Publish` on `arn:c`")


def test_a_function_that_anyone_may_call_says_so() -> None:
    new = {"principal": "*", "action": "lambda:InvokeFunction", "function": "f"}
    (line,) = lines(new_rights, step("create", "aws:lambda/permission:Permission", new=new))
    assert line.endswith("`*` may call `lambda:InvokeFunction` on `f`, **whatever the source**")


def test_a_route_without_authorization_is_a_right_where_people_come_in() -> None:
    def opened(key: str) -> list[str]:
        return lines(new_rights, step("create", "aws:apigatewayv2/route:Route", new={"routeKey": key}))

    assert len(opened("$connect")) == len(opened("POST /uploads")) == 1
    assert opened("progress") == [], "a WebSocket is authorized on $connect alone"


def test_an_attached_policy_and_a_lifted_boundary_are_rights() -> None:
    old = {"managedPolicyArns": ["arn:x"], "permissionsBoundary": "arn:limit"}
    made = step("update", "aws:iam/role:Role", old=old, new={"managedPolicyArns": ["arn:x", "arn:Administrator"]})
    assert lines(new_rights, made) == [
        "`it` (Role): attaches the policy `arn:Administrator`",
        "`it` (Role): its permissions boundary becomes none",
    ]


# --- the text ---


def test_a_preview_without_anything_to_look_at_says_so() -> None:
    text = comment({"steps": [], "changeSummary": {"same": 56}}, stack="dev")
    assert "No data is at stake, no URL changes, and nobody gets a new right." in text
    assert text.endswith("56 unchanged\n")


def test_where_any_change_is_news_each_is_named_once() -> None:
    text = comment(recorded("stage-renamed"), stack="dev", every_change=True)
    _, _, others = text.partition("#### Other changes")
    assert "**updated** `stall-watchdog-function` (Function): `environment`" in others
    assert "`api-stage`" not in others, "the URLs name it"
    assert text.count("`stall-watchdog-function`") == 1
    assert "#### Other changes" not in comment(recorded("stage-renamed"), stack="dev")


def test_an_operation_that_is_not_known_is_counted_under_its_own_name() -> None:
    text = comment({"steps": [step("teleport", "aws:s3/bucket:Bucket")], "changeSummary": {"teleport": 1}}, stack="dev")
    assert text.endswith("1 teleport\n")


def test_names_are_shown_as_text_and_never_as_markup() -> None:
    hostile = "`@everyone` [x](https://example.com)\n# heading"
    (line,) = lines(data_at_stake, step("delete", "aws:s3/bucket:Bucket", name=hostile))
    assert line == "**deleted** `'@everyone' [x](https://example.com) # heading` (Bucket)"


def test_an_error_cannot_close_the_block_it_stands_in() -> None:
    failed = {
        "diagnostics": [{"severity": "error", "message": "````\n# gone"}, {"severity": "warning", "message": "no"}]
    }
    text = comment(failed, stack="dev")
    assert "`````\n````\n# gone\n`````" in text


def test_the_longest_comment_is_one_that_github_takes() -> None:
    many = [step("delete", "aws:s3/bucket:Bucket", name=f"{number:04}{'`x' * 2000}") for number in range(500)]
    long = policy(*({"Effect": "Allow", "Action": f"s3:{'a' * 900}", "Resource": f"arn:{n}"} for n in range(100)))
    roles = [step("create", "aws:iam/rolePolicy:RolePolicy", name=f"p{n}", new={"policy": long}) for n in range(100)]
    apis = [step("delete", "aws:apigatewayv2/api:Api", name=f"{number:04}{'y' * 2000}") for number in range(500)]
    errors = [{"severity": "error", "message": "e" * 100_000}]
    rules = [step("create", "aws:cloudwatch/eventRule:EventRule", name=f"{n:04}{'z' * 2000}") for n in range(500)]
    failed = {**preview(*many, *roles, *apis, *rules), "diagnostics": errors}
    text = comment(failed, stack="s" * 100, every_change=True)
    assert len(text) <= 65_536
    assert text.count("**476 more**") == 3
    assert all(line.count("`") % 2 == 0 for line in text.splitlines() if line.startswith("- "))


def test_the_workflow_finds_its_comment_by_the_marker_that_the_comment_starts_with() -> None:
    assert MARKER in (ROOT / ".github" / "workflows" / "preview.yml").read_text()


def test_lines_that_an_installer_wrote_before_the_preview_are_passed_over() -> None:
    assert parse('Creating virtual environment...\n{"steps": []}\n') == {"steps": []}


@pytest.mark.parametrize(
    "text", ["", "error: no stack named 'dev' found", "[]", '{"steps": 7}', '{"steps": [{}]}', '{"steps": [']
)
def test_a_preview_that_gave_no_result_replaces_an_older_comment_and_fails(text: str) -> None:
    done = subprocess.run(
        [sys.executable, "tools/preview_comment.py", "--stack", "dev"],
        input=text,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.startswith(MARKER)
    assert "**The preview gave no result.**" in done.stdout
    assert "preview_comment: standard input is not what" in done.stderr
    assert "Traceback" not in done.stderr
