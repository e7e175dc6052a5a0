"""Ends heard by a rule of a team's own, on the emulator, though nobody watches.

Does not prove that EventBridge delivers as the emulator does, nor that it knows the condition `events:source`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from docprogress.table.client import Table
from docprogress.table.states import States
from tests.local.conftest import DeployedStack
from tests.local.scenarios import eventually

pytestmark = pytest.mark.emulator

# As docs/adr/0007 shows it.
PATTERN = {"source": ["docprogress"], "detail-type": ["document.completed", "document.failed"]}


def test_a_rule_hears_of_an_end_though_nobody_watches(stream_stack: DeployedStack) -> None:
    rules, queues = stream_stack.client("events"), stream_stack.client("sqs")
    queue = queues.create_queue(QueueName="ends")["QueueUrl"]
    arn = queues.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    rules.put_rule(Name="ends", EventPattern=json.dumps(PATTERN))
    rules.put_targets(Rule="ends", Targets=[{"Id": "queue", "Arn": arn}])
    states = States(Table(stream_stack.outputs["tableName"], lambda: stream_stack.client("dynamodb")))
    states.cancel("unwatched", principal_id=None)
    heard: list[Any] = []

    def has_come() -> bool:
        for message in queues.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
            heard.append(json.loads(message["Body"]))
        return any(each["detail"]["docId"] == "unwatched" for each in heard)

    assert eventually(has_come), stream_stack.emulator.log()
    (event,) = [each for each in heard if each["detail"]["docId"] == "unwatched"]
    assert (event["source"], event["detail-type"]) == ("docprogress", "document.failed")
    assert event["detail"]["error"]["errorCode"] == "CANCELLED"
