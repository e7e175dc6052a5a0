"""The table of connections, subscriptions and document states; `docprogress.table` in `library/` describes its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from .grants import Grantee, grant, name_of
from .keeping import kept
from .policy import allow, use_keys_of

# The keys of the rows and the indexes, as the library writes and reads them.
PARTITION_KEY, SORT_KEY = "pk", "sk"
CONNECTION_INDEX, CONNECTION_KEY = "by_connection", "connection_id"
ACTIVITY_INDEX, ACTIVITY_KEY, ACTIVITY_SORT_KEY = "by_activity", "active_shard", "updated_at"
EXPIRY = "expires_at"
DOCUMENT_ROWS = "DOCUMENT#*"
"""The partition keys of a document's rows: its state and its subscriptions."""
OWNER_ROWS = "OWNER#*"
"""The partition keys of the rows that say what an owner has under way."""
CONNECTION_ATTRIBUTES = (
    "connected_at",
    CONNECTION_KEY,
    EXPIRY,
    PARTITION_KEY,
    "principal_id",
    SORT_KEY,
    "subscribed_at",
)
"""All that the rows of connections and subscriptions have, and nothing of a state but its keys and its end."""
STATE = "STATE"
"""The sort key of the row that holds a document's state."""


@dataclass(frozen=True, kw_only=True)
class ProgressTableArgs:
    """
    Attributes:
        with_stream: keep a stream of what changes, for the stream's fan-out.
        kms_key_arn: a customer key. None for one that AWS owns.
        disposable: the table may be deleted with all that is in it.
    """

    with_stream: bool = False
    kms_key_arn: str | None = None
    disposable: bool = False


class ProgressTable(pulumi.ComponentResource):
    """
    ```python
    table = ProgressTable("progress", ProgressTableArgs())
    table.grant_write_states(worker)
    ```
    """

    table_name: pulumi.Output[str]
    arn: pulumi.Output[str]
    stream_arn: pulumi.Output[str]

    def __init__(self, name: str, args: ProgressTableArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("docprogress:infra:ProgressTable", name, None, opts)
        self._name = name
        table = aws.dynamodb.Table(
            f"{name}-table",
            billing_mode="PAY_PER_REQUEST",
            hash_key=PARTITION_KEY,
            range_key=SORT_KEY,
            attributes=[
                {"name": PARTITION_KEY, "type": "S"},
                {"name": SORT_KEY, "type": "S"},
                {"name": CONNECTION_KEY, "type": "S"},
                {"name": ACTIVITY_KEY, "type": "S"},
                {"name": ACTIVITY_SORT_KEY, "type": "N"},
            ],
            global_secondary_indexes=[
                # Sparse: only subscriptions carry connection_id. An index over every row would put all
                # states into one hot partition.
                {
                    "name": CONNECTION_INDEX,
                    "key_schemas": [{"attribute_name": CONNECTION_KEY, "key_type": "HASH"}],
                    "projection_type": "KEYS_ONLY",
                },
                # Sparse: only documents that have started and not ended carry active_shard.
                {
                    "name": ACTIVITY_INDEX,
                    "key_schemas": [
                        {"attribute_name": ACTIVITY_KEY, "key_type": "HASH"},
                        {"attribute_name": ACTIVITY_SORT_KEY, "key_type": "RANGE"},
                    ],
                    "projection_type": "KEYS_ONLY",
                },
            ],
            ttl={"attribute_name": EXPIRY, "enabled": True},
            # Without a key: the one that AWS owns. Saying nothing would leave the table on a key that was taken away.
            server_side_encryption={"enabled": args.kms_key_arn is not None, "kms_key_arn": args.kms_key_arn},
            deletion_protection_enabled=not args.disposable,
            point_in_time_recovery={"enabled": True},
            stream_enabled=args.with_stream,
            # The old image tells a new state from a heartbeat.
            stream_view_type="NEW_AND_OLD_IMAGES" if args.with_stream else None,
            opts=kept(parent=self, disposable=args.disposable),
        )
        # DynamoDB uses a customer key in the name of the role that reads or writes.
        self.using_keys = use_keys_of("dynamodb", table.arn, "aws:dynamodb:tableName", [table.name])
        self._key_users: set[str] = set()
        self.table_name = table.name
        self.arn = table.arn
        self.stream_arn = table.stream_arn
        self.register_outputs({"table_name": self.table_name, "arn": self.arn})

    def grant_connections(self, grantee: Grantee) -> aws.iam.RolePolicy:
        """Let a function keep connections and subscriptions, and read and cancel documents."""
        return self._grant(
            grantee,
            "keep-connections-in",
            allow(["dynamodb:GetItem"], [self.arn]),
            # The function that the internet reaches can make no state of its own, and of no connection a document.
            {
                **allow(["dynamodb:BatchWriteItem", "dynamodb:DeleteItem", "dynamodb:PutItem"], [self.arn]),
                "Condition": {"ForAllValues:StringEquals": {"dynamodb:Attributes": list(CONNECTION_ATTRIBUTES)}},
            },
            self._of_documents("dynamodb:UpdateItem"),
            allow(["dynamodb:Query"], [self._index_arn(CONNECTION_INDEX)]),
        )

    def grant_write_states(self, grantee: Grantee) -> aws.iam.RolePolicy:
        """Let a worker record the progress of documents."""
        return self._grant(grantee, "write-states-in", self.writing_states)

    @property
    def writing_states(self) -> dict[str, Any]:
        return self._of_documents("dynamodb:UpdateItem")

    def grant_read_states(self, grantee: Grantee) -> aws.iam.RolePolicy:
        """Let a function read how a document stands."""
        return self._grant(grantee, "read-states-in", self._of_documents("dynamodb:GetItem"))

    def grant_expect(self, grantee: Grantee) -> aws.iam.RolePolicy:
        """Let a function note whose a document will be, and how many an owner has under way."""
        actions = ["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:PutItem"]
        return self._grant(grantee, "expect-documents-in", self._of_rows(actions, DOCUMENT_ROWS, OWNER_ROWS))

    def grant_find_watchers(self, grantee: Grantee) -> aws.iam.RolePolicy:
        """Let a function find out who watches a document, and forget watchers that are gone."""
        return self._grant(grantee, "find-watchers-in", self.finding_watchers)

    @property
    def finding_watchers(self) -> dict[str, Any]:
        return self._of_documents("dynamodb:DeleteItem", "dynamodb:Query")

    def grant_find_silent_documents(self, grantee: Grantee) -> aws.iam.RolePolicy:
        """Let a function find documents that were not written for long."""
        return self._grant(
            grantee, "find-silent-documents-in", allow(["dynamodb:Query"], [self._index_arn(ACTIVITY_INDEX)])
        )

    def grant_read_stream(self, grantee: Grantee) -> aws.iam.RolePolicy:
        """Let Lambda read the table's stream on a function's behalf."""
        return self._grant(
            grantee,
            "read-stream-of",
            allow(["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"], [self.stream_arn]),
            # For ListStreams, DynamoDB's own example names the streams of the table, and nothing narrower:
            # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/iam-policy-read-stream-only.html
            allow(["dynamodb:ListStreams"], [pulumi.Output.concat(self.arn, "/stream/*")]),
        )

    def _grant(self, grantee: Grantee, intent: str, *statements: dict[str, Any]) -> aws.iam.RolePolicy:
        policy = grant(grantee, f"{intent}-{self._name}", *statements, parent=self)
        if name_of(grantee) not in self._key_users:
            self._key_users.add(name_of(grantee))
            grant(grantee, f"use-keys-of-{self._name}", *self.using_keys, parent=self)
        return policy

    def _of_documents(self, *actions: str) -> dict[str, Any]:
        """On rows of documents alone. Who reads hostile files, say, cannot make a connection somebody else's."""
        return self._of_rows(actions, DOCUMENT_ROWS)

    def _of_rows(self, actions: Sequence[str], *partition_keys: str) -> dict[str, Any]:
        return {
            **allow(actions, [self.arn]),
            "Condition": {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": list(partition_keys)}},
        }

    def _index_arn(self, index: str) -> pulumi.Output[str]:
        return pulumi.Output.concat(self.arn, "/index/", index)
