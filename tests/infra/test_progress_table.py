"""The table, its indexes and who may do what in it.

Does not prove that the store asks for no more than is granted: the emulator's tests do, with IAM enforced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from infra.lambda_function import LambdaFunction
from infra.progress_table import CONNECTION_ATTRIBUTES, ProgressTable
from tests.infra.samples import KMS_KEY_ARN, allowed, lambda_function, of_documents, policy, progress_table
from tests.mock_engine import PARTITION, REGION, SUFFIX, arn, run

TABLE = arn("dynamodb", f"table/progress-table-{SUFFIX}")
TABLE_INPUTS = {
    "billingMode": "PAY_PER_REQUEST",
    "hashKey": "pk",
    "rangeKey": "sk",
    "attributes": [
        {"name": "pk", "type": "S"},
        {"name": "sk", "type": "S"},
        {"name": "connection_id", "type": "S"},
        {"name": "active_shard", "type": "S"},
        {"name": "updated_at", "type": "N"},
    ],
    "globalSecondaryIndexes": [
        {
            "name": "by_connection",
            "keySchemas": [{"attributeName": "connection_id", "keyType": "HASH"}],
            "projectionType": "KEYS_ONLY",
        },
        {
            "name": "by_activity",
            "keySchemas": [
                {"attributeName": "active_shard", "keyType": "HASH"},
                {"attributeName": "updated_at", "keyType": "RANGE"},
            ],
            "projectionType": "KEYS_ONLY",
        },
    ],
    "ttl": {"attributeName": "expires_at", "enabled": True},
    "serverSideEncryption": {"enabled": False},
    "deletionProtectionEnabled": True,
    "pointInTimeRecovery": {"enabled": True},
}


def test_the_table_expires_its_rows_and_is_encrypted() -> None:
    table = run(progress_table).one("Table")
    assert table.inputs == TABLE_INPUTS | {"streamEnabled": False}


def test_the_table_has_a_stream_where_one_is_asked_for() -> None:
    table = run(lambda: progress_table(with_stream=True)).one("Table")
    assert table.inputs == TABLE_INPUTS | {"streamEnabled": True, "streamViewType": "NEW_AND_OLD_IMAGES"}


def test_a_customer_s_key_encrypts_the_table() -> None:
    table = run(lambda: progress_table(kms_key_arn=KMS_KEY_ARN)).one("Table")
    assert table.inputs["serverSideEncryption"] == {"enabled": True, "kmsKeyArn": KMS_KEY_ARN}


def test_every_key_of_an_index_is_an_attribute_and_none_is_left_over() -> None:
    inputs = run(progress_table).one("Table").inputs
    keys = {inputs["hashKey"], inputs["rangeKey"]}
    keys |= {key["attributeName"] for index in inputs["globalSecondaryIndexes"] for key in index["keySchemas"]}
    assert {each["name"] for each in inputs["attributes"]} == keys, "DynamoDB refuses attributes that are no keys"


@pytest.mark.parametrize(
    ("grant", "intent", "statements"),
    [
        (
            ProgressTable.grant_connections,
            "keep-connections-in-progress",
            [
                *allowed((["dynamodb:GetItem"], [TABLE]))["Statement"],
                {
                    "Effect": "Allow",
                    "Action": ["dynamodb:BatchWriteItem", "dynamodb:DeleteItem", "dynamodb:PutItem"],
                    "Resource": [TABLE],
                    "Condition": {"ForAllValues:StringEquals": {"dynamodb:Attributes": list(CONNECTION_ATTRIBUTES)}},
                },
                of_documents("dynamodb:UpdateItem", table=TABLE),
                *allowed((["dynamodb:Query"], [f"{TABLE}/index/by_connection"]))["Statement"],
            ],
        ),
        (
            ProgressTable.grant_write_states,
            "write-states-in-progress",
            [of_documents("dynamodb:UpdateItem", table=TABLE)],
        ),
        (
            ProgressTable.grant_expect,
            "expect-documents-in-progress",
            [
                {
                    **of_documents("dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:PutItem", table=TABLE),
                    "Condition": {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["DOCUMENT#*", "OWNER#*"]}},
                },
            ],
        ),
        (
            ProgressTable.grant_find_watchers,
            "find-watchers-in-progress",
            [of_documents("dynamodb:DeleteItem", "dynamodb:Query", table=TABLE)],
        ),
        (
            ProgressTable.grant_find_silent_documents,
            "find-silent-documents-in-progress",
            allowed((["dynamodb:Query"], [f"{TABLE}/index/by_activity"]))["Statement"],
        ),
        (
            ProgressTable.grant_read_stream,
            "read-stream-of-progress",
            allowed(
                (
                    ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"],
                    [f"{TABLE}/stream/2026-01-01T00:00:00.000"],
                ),
                (["dynamodb:ListStreams"], [f"{TABLE}/stream/*"]),
            )["Statement"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_grant_allows_its_intent_to_each_grantee(
    grant: Callable[[ProgressTable, LambdaFunction], object],
    intent: str,
    statements: list[dict[str, Any]],
) -> None:
    def program(**args: str) -> None:
        table = progress_table(with_stream=True, **args)
        for name in ("one", "other"):
            grant(table, lambda_function(name))

    graph = run(program)
    for grantee in ("one", "other"):
        granted = graph.one("RolePolicy", f"{grantee}-{intent}")
        assert policy(graph, granted.name)["Statement"] == statements
        assert granted.inputs["role"] == f"{grantee}-role-{SUFFIX}"
        assert granted.parent == graph.one("docprogress:infra:ProgressTable").urn


def test_who_uses_the_table_may_use_whatever_key_it_has_and_gets_that_once() -> None:
    def program(**args: str) -> None:
        table = progress_table(**args)
        worker = lambda_function("worker")
        table.grant_write_states(worker)
        table.grant_find_watchers(worker)

    graphs = (run(program), run(lambda: program(kms_key_arn=KMS_KEY_ARN)))
    documents = [policy(graph, "worker-use-keys-of-progress") for graph in graphs]
    assert documents[0] == documents[1], "else a key that is new would be refused, and one that is gone still needed"
    using, _ = documents[0]["Statement"]
    assert using["Resource"] == [f"arn:{PARTITION}:kms:{REGION}:*:key/*"]
    assert using["Condition"] == {
        "StringEquals": {"kms:ViaService": f"dynamodb.{REGION}.amazonaws.com.cn"},
        "StringLike": {"kms:EncryptionContext:aws:dynamodb:tableName": [f"progress-table-{SUFFIX}"]},
    }


def test_a_plan_refuses_to_delete_the_table_unless_the_stack_is_disposable() -> None:
    table = run(progress_table).one("Table")
    assert (table.protect, table.inputs["deletionProtectionEnabled"]) == (True, True)
    table = run(lambda: progress_table(disposable=True)).one("Table")
    assert (table.protect, table.inputs["deletionProtectionEnabled"]) == (False, False)
