"""Tells watchers from the table's stream, so that workers only record states."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from .lambda_function import FunctionSettings, LambdaFunction, LambdaFunctionArgs
from .progress_table import SORT_KEY, STATE
from .publishing import Publishing

# Only rows that hold a document's state; connections and subscriptions never wake the function.
_STATES = json.dumps(
    {"eventName": ["INSERT", "MODIFY"], "dynamodb": {"Keys": {SORT_KEY: {"S": [STATE]}}}},
)


@dataclass(frozen=True, kw_only=True)
class StreamFanOutArgs:
    publishing: Publishing
    functions: FunctionSettings


class StreamFanOut(pulumi.ComponentResource):
    """
    ```python
    StreamFanOut("stream-fan-out", StreamFanOutArgs(publishing=publishing, ...))
    ```
    """

    function: LambdaFunction

    def __init__(self, name: str, args: StreamFanOutArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("docprogress:infra:StreamFanOut", name, None, opts)
        self.function = LambdaFunction(
            name,
            LambdaFunctionArgs(
                handler_module="stream_fan_out",
                environment=args.publishing.announcer_environment,
                timeout_seconds=60,
                settings=args.functions,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        args.publishing.grant_announcer(self.function)
        # It notes which ends everyone has been told of.
        args.publishing.table.grant_write_states(self.function)
        args.publishing.table.grant_read_stream(self.function)
        aws.lambda_.EventSourceMapping(
            f"{name}-states",
            function_name=self.function.arn,
            event_source_arn=args.publishing.table.stream_arn,
            # Lambda begins to read minutes after the mapping is made; what is older than the age below is left out.
            starting_position="TRIM_HORIZON",
            # Sixteen at once, 10 s each at the most: within the time-out even if all of them have ended.
            batch_size=64,
            filter_criteria={"filters": [{"pattern": _STATES}]},
            function_response_types=["ReportBatchItemFailures"],
            # One document's states stay in order: they share a partition key.
            parallelization_factor=10,
            # News that is older than this has long been overtaken, or heard of by asking again.
            maximum_record_age_in_seconds=120,
            maximum_retry_attempts=5,
            bisect_batch_on_function_error=True,
            # Lambda checks that the role may read the stream when the mapping is made.
            opts=pulumi.ResourceOptions(parent=self, depends_on=self.function.grants),
        )
        self.register_outputs({})
