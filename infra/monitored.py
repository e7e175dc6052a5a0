"""The names under which the parts of a stack appear in metrics and logs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pulumi

API_GATEWAY = "AWS/ApiGateway"
DYNAMODB = "AWS/DynamoDB"
LAMBDA = "AWS/Lambda"
SQS = "AWS/SQS"
OWN = "docprogress"  # as in library/docprogress/telemetry.py

Parts = Literal[
    "account",
    "api",
    "announcers",
    "dead letters",
    "functions",
    "handler",
    "indexes",
    "stream",
    "table",
    "watchdog",
    "workers",
]
Dimensions = Mapping[str, pulumi.Input[str]]


@dataclass(frozen=True, kw_only=True)
class Monitored:
    """
    Attributes:
        name: starts the physical name of everything that watches the stack, so no other owner may have it.
        functions: the physical name of each function, by its logical one.
        services: the name in its own metrics, by its logical one.
        handler: the function behind the routes.
        announcers: which functions tell the watchers.
        workers: which functions report documents.
        watchdog: the function that ends silent documents.
        stream: the function behind the table's stream; None where there is no stream.
        dead_letter_queue: the queue of events that were given up; None where there is none.
    """

    name: pulumi.Input[str]
    region: pulumi.Input[str]
    api_id: pulumi.Input[str]
    stage_name: pulumi.Input[str]
    access_log_group: pulumi.Input[str]
    table_name: pulumi.Input[str]
    indexes: tuple[str, ...] = ("by_activity", "by_connection")
    functions: Mapping[str, pulumi.Input[str]]
    services: Mapping[str, str]
    handler: str
    announcers: tuple[str, ...]
    workers: tuple[str, ...] = ()
    watchdog: str
    stream: str | None = None
    dead_letter_queue: pulumi.Input[str] | None = None

    def __post_init__(self) -> None:
        named = {self.handler, *self.announcers, *self.workers, self.watchdog, *filter(None, [self.stream])}
        if unknown := named - self.functions.keys():
            raise ValueError(f"{', '.join(sorted(unknown))} is not among functions: {', '.join(self.functions)}.")

    def parts(self, of: Parts, namespace: str) -> Mapping[str, Dimensions]:
        """The dimensions of each part's metrics in a namespace, by the part's name; a part that is alone has none."""
        match of:
            case "account":
                return {"": {}}
            case "api":
                return {"": {"ApiId": self.api_id, "Stage": self.stage_name}}
            case "table":
                return {"": {"TableName": self.table_name}}
            case "indexes":
                return {
                    index: {"TableName": self.table_name, "GlobalSecondaryIndexName": index} for index in self.indexes
                }
            case "dead letters":
                return {"": {"QueueName": self.dead_letter_queue}} if self.dead_letter_queue is not None else {}
            case "functions":
                functions = tuple(self.functions)
            case "handler":
                return {"": {"service": self.services[self.handler]}}
            case "announcers":
                functions = self.announcers
            case "workers":
                functions = self.workers
            case "watchdog":
                functions = (self.watchdog,)
            case "stream":
                functions = (self.stream,) if self.stream else ()
        if namespace == LAMBDA:
            return {function: {"FunctionName": self.functions[function]} for function in functions}
        return {function: {"service": self.services[function]} for function in functions}

    @property
    def function_log_groups(self) -> list[pulumi.Output[str]]:
        return [pulumi.Output.concat("/aws/lambda/", name) for name in self.functions.values()]
