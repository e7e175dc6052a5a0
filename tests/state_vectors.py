"""The vectors of vectors/states.json: what a call makes of a row, whichever language the worker is written in.

`outcome` is `written`, `known` (written before, so nothing changes), `refused` or `cancelled`. `changes` are the
attributes that differ afterwards, null for one that is gone; a written row has the `times` besides. `message` is the
state as watchers are told it, without its docId.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from docprogress.messages import state_message
from docprogress.table.items import state_key, state_of

FILE = Path(__file__).parent / "vectors" / "states.json"
VECTORS: dict[str, Any] = json.loads(FILE.read_text())
DOCUMENT_ID: str = VECTORS["docId"]
KEY = state_key(DOCUMENT_ID)


def put_row(client: Any, table_name: str, vector: dict[str, Any]) -> None:
    row = VECTORS["rows"][vector["row"]]
    if row is None:
        client.delete_item(TableName=table_name, Key=KEY)
    else:
        client.put_item(TableName=table_name, Item={**KEY, **_typed(row)})


def assert_outcome(client: Any, table_name: str, vector: dict[str, Any], outcome: str) -> None:
    expected = vector["outcome"]
    assert outcome == ("written" if expected == "known" else expected)
    row = client.get_item(TableName=table_name, Key=KEY, ConsistentRead=True).get("Item")
    changed = {**(VECTORS["rows"][vector["row"]] or {}), **vector.get("changes", {})}
    if expected == "written":
        changed |= VECTORS["times"]
    assert _plain(row) == {name: value for name, value in changed.items() if value is not None}
    if "message" in vector:
        assert state_message(state_of(row)) == {**vector["message"], "docId": DOCUMENT_ID}


def _typed(row: dict[str, Any]) -> dict[str, Any]:
    return {name: TypeSerializer().serialize(value) for name, value in row.items()}


def _plain(row: dict[str, Any] | None) -> dict[str, Any]:
    read = {name: TypeDeserializer().deserialize(value) for name, value in (row or {}).items()}
    # Random, and nobody's to read but the writer's.
    return {name: _whole(value) for name, value in read.items() if name not in ("pk", "sk", "write_id")}


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _whole(each) for name, each in value.items()}
    return int(value) if isinstance(value, Decimal) else value
