"""An event on EventBridge for every end of every run, from the table's stream. docs/adr/0007 says why by a function."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from .lambda_function import FunctionSettings, LambdaFunction, LambdaFunctionArgs
from .policy import allow
from .progress_table import SORT_KEY, STATE, ProgressTable

# As functions/end_events.py has it.
_SOURCE = "docprogress"
# Which of these is a new end, the function tells: a pattern cannot compare what was with what is.
_ENDS = json.dumps(
    {
        "eventName": ["INSERT", "MODIFY"],
        "dynamodb": {
            "Keys": {SORT_KEY: {"S": [STATE]}},
            "NewImage": {"status": {"S": ["processing_complete", "error"]}},
        },
    }
)


@dataclass(frozen=True, kw_only=True)
class EndEventsArgs:
    """
    Attributes:
        table: one with a stream.
    """

    table: ProgressTable
    functions: FunctionSettings


class EndEvents(pulumi.ComponentResource):
    """
    ```python
    EndEvents("end-events", EndEventsArgs(table=table, functions=functions))
    ```
    """

    function: LambdaFunction

    def __init__(self, name: str, args: EndEventsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("docprogress:infra:EndEvents", name, None, opts)
        self.function = LambdaFunction(
            name,
            LambdaFunctionArgs(handler_module="end_events", timeout_seconds=60, settings=args.functions),
            pulumi.ResourceOptions(parent=self),
        )
        bus = self.function.arn.apply(lambda arn: "arn:{1}:events:{3}:{4}:event-bus/default".format(*arn.split(":")))
        self.function.grant(
            "put-events",
            {
                **allow(["events:PutEvents"], [bus]),
                "Condition": {"ForAllValues:StringEquals": {"events:source": [_SOURCE]}},
            },
            parent=self,
        )
        args.table.grant_read_stream(self.function)
        aws.lambda_.EventSourceMapping(
            f"{name}-ends",
            function_name=self.function.arn,
            event_source_arn=args.table.stream_arn,
            # Lambda begins to read minutes after the mapping is made.
            starting_position="TRIM_HORIZON",
            batch_size=100,
            filter_criteria={"filters": [{"pattern": _ENDS}]},
            # Tried until it is put or the stream forgets it, after a day: no end may go unheard.
            function_response_types=["ReportBatchItemFailures"],
            bisect_batch_on_function_error=True,
            # Lambda checks that the role may read the stream when the mapping is made.
            opts=pulumi.ResourceOptions(parent=self, depends_on=self.function.grants),
        )
        self.register_outputs({})
