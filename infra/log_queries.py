"""The questions that are asked of the logs at night, saved in the account: CloudWatch, Logs Insights, Queries.

A query is a row of `QUERIES`. The fields of the functions' lines are theirs to write; those of the access log are in
`infra/websocket_stage.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pulumi
import pulumi_aws as aws

from .monitored import Monitored


@dataclass(frozen=True)
class LogQuery:
    """
    Attributes:
        name: its last part is what people look for.
        of: whose log groups are asked.
    """

    name: str
    of: Literal["access", "functions"]
    query: str


QUERIES = (
    LogQuery(
        "connections that failed",
        "access",
        """fields @timestamp, connectionId, sourceIp, status, integrationStatus, errorResponseType, errorMessage
| filter routeKey = "$connect" and status != 200
| sort @timestamp desc
| limit 100""",
    ),
    LogQuery(
        "errors by route",
        "access",
        """filter status >= 400 or integrationStatus >= 400
| stats count(*) as errors by routeKey, status, integrationStatus
| sort errors desc""",
    ),
    LogQuery(
        "who is throttled",
        "access",
        """filter status = 429
| stats count(*) as refused by sourceIp, routeKey
| sort refused desc
| limit 50""",
    ),
    LogQuery(
        "life of a document",
        "functions",
        """fields @timestamp, service, level, message, status, sequence, delivered, stale, throttled, failed
| filter document_id = "REPLACE-ME"
| sort @timestamp asc
| limit 1000""",
    ),
    LogQuery(
        "what came of a correlation id",
        "functions",
        """fields @timestamp, service, level, message, connection_id, document_id, principal_id, status, error_code
| filter correlation_id = "REPLACE-ME"
| sort @timestamp asc
| limit 1000""",
    ),
    LogQuery(
        "slowest messages",
        "functions",
        """filter message = "Announced"
| stats max(fan_out_milliseconds) as slowest, sum(throttled) as refused, sum(failed) as lost by document_id
| sort slowest desc
| limit 20""",
    ),
    LogQuery(
        "refusals by reason",
        "functions",
        """filter message in ["connection refused", "Connection refused", "Request refused"]
| stats count(*) as refusals by service, message, reason, error_code
| sort refusals desc""",
    ),
    LogQuery(
        "cost by document",
        "functions",
        # A post is a message on API Gateway's bill; each update is one write of the table and one Query of watchers.
        """filter message = "Announced"
| stats sum(delivered) as posts, count(*) as updates, sum(fan_out_milliseconds) as worker_ms by document_id
| sort posts desc
| limit 50""",
    ),
)


class LogQueries(pulumi.ComponentResource):
    """
    ```python
    LogQueries("queries", monitored)
    ```
    """

    def __init__(self, name: str, monitored: Monitored, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("docprogress:infra:LogQueries", name, None, opts)
        groups: dict[str, list[pulumi.Input[str]]] = {
            "access": [monitored.access_log_group],
            "functions": [*monitored.function_log_groups],
        }
        for query in QUERIES:
            aws.cloudwatch.QueryDefinition(
                f"{name}-{query.name.replace(' ', '-')}",
                # The console shows what is before the slash as a folder.
                name=pulumi.Output.concat(monitored.name, "/", query.name),
                query_string=query.query,
                log_group_names=groups[query.of],
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({})
