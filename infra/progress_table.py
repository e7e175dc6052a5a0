"""The table of connections, subscriptions and document states; `docprogress.table` in `library/` describes its rows."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.lambda_function import LambdaFunction
from infra.policy import allow, use_key


@dataclass(frozen=True, kw_only=True)
class ProgressTableArgs:
    """
    Attributes:
        with_stream: keep a stream of what changes, for the stream's fan-out.
        kms_key_arn: a customer key, for the table's whole life; None for the one that AWS manages.
        deletion_protection: DynamoDB refuses to delete the table.
    """

    with_stream: bool = False
    kms_key_arn: str | None = None
    deletion_protection: bool = False


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
        # DynamoDB uses a customer key in the name of whoever reads or writes.
        self._use_of_key = [use_key(args.kms_key_arn, "dynamodb")] if args.kms_key_arn else []
        table = aws.dynamodb.Table(
            f"{name}-table",
            billing_mode="PAY_PER_REQUEST",
            hash_key="pk",
            range_key="sk",
            attributes=[
                {"name": "pk", "type": "S"},
                {"name": "sk", "type": "S"},
                {"name": "connection_id", "type": "S"},
                {"name": "active_shard", "type": "S"},
                {"name": "updated_at", "type": "N"},
            ],
            global_secondary_indexes=[
                # Sparse: only subscriptions carry connection_id. An index over every row would put all
                # states into one hot partition.
                {
                    "name": "by_connection",
                    "key_schemas": [{"attribute_name": "connection_id", "key_type": "HASH"}],
                    "projection_type": "KEYS_ONLY",
                },
                # Sparse: only documents that have started and not ended carry active_shard.
                {
                    "name": "by_activity",
                    "key_schemas": [
                        {"attribute_name": "active_shard", "key_type": "HASH"},
                        {"attribute_name": "updated_at", "key_type": "RANGE"},
                    ],
                    "projection_type": "KEYS_ONLY",
                },
            ],
            ttl={"attribute_name": "expires_at", "enabled": True},
            # A key that is taken away again stays in force on the table, and the provider does not notice.
            server_side_encryption={"enabled": True, "kms_key_arn": args.kms_key_arn},
            deletion_protection_enabled=args.deletion_protection,
            point_in_time_recovery={"enabled": True},
            stream_enabled=args.with_stream,
            # The old image tells a new state from a heartbeat.
            stream_view_type="NEW_AND_OLD_IMAGES" if args.with_stream else None,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.table_name = table.name
        self.arn = table.arn
        self.stream_arn = table.stream_arn
        self._activity_index_arn = pulumi.Output.concat(table.arn, "/index/by_activity")
        self._connection_index_arn = pulumi.Output.concat(table.arn, "/index/by_connection")
        self.register_outputs({"table_name": self.table_name, "arn": self.arn})

    def grant_connections(self, grantee: LambdaFunction) -> aws.iam.RolePolicy:
        """Let a function keep connections and subscriptions, and read the state of documents."""
        return grantee.grant(
            f"keep-connections-in-{self._name}",
            allow(
                [
                    "dynamodb:BatchWriteItem",
                    "dynamodb:DeleteItem",
                    "dynamodb:GetItem",
                    "dynamodb:PutItem",
                ],
                [self.arn],
            ),
            allow(["dynamodb:Query"], [self._connection_index_arn]),
            *self._use_of_key,
            parent=self,
        )

    def grant_write_states(self, grantee: LambdaFunction) -> aws.iam.RolePolicy:
        """Let a worker record the progress of documents."""
        return grantee.grant(
            f"write-states-in-{self._name}", allow(["dynamodb:UpdateItem"], [self.arn]), *self._use_of_key, parent=self
        )

    def grant_expect(self, grantee: LambdaFunction) -> aws.iam.RolePolicy:
        """Let a function note whose a document will be."""
        return grantee.grant(
            f"expect-documents-in-{self._name}", allow(["dynamodb:PutItem"], [self.arn]), *self._use_of_key, parent=self
        )

    def grant_find_watchers(self, grantee: LambdaFunction) -> aws.iam.RolePolicy:
        """Let a function find out who watches a document, and forget watchers that are gone."""
        return grantee.grant(
            f"find-watchers-in-{self._name}",
            allow(["dynamodb:DeleteItem", "dynamodb:Query"], [self.arn]),
            *self._use_of_key,
            parent=self,
        )

    def grant_find_silent_documents(self, grantee: LambdaFunction) -> aws.iam.RolePolicy:
        """Let a function find documents that were not written for long."""
        return grantee.grant(
            f"find-silent-documents-in-{self._name}",
            allow(["dynamodb:Query"], [self._activity_index_arn]),
            *self._use_of_key,
            parent=self,
        )

    def grant_read_stream(self, grantee: LambdaFunction) -> aws.iam.RolePolicy:
        """Let Lambda read the table's stream on a function's behalf."""
        return grantee.grant(
            f"read-stream-of-{self._name}",
            allow(
                ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"],
                [self.stream_arn],
            ),
            # For ListStreams, DynamoDB's own example names the streams of the table, and nothing narrower:
            # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/iam-policy-read-stream-only.html
            allow(["dynamodb:ListStreams"], [pulumi.Output.concat(self.arn, "/stream/*")]),
            *self._use_of_key,
            parent=self,
        )
