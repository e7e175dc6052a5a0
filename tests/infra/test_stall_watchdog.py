"""The function that ends silent documents, and what calls it every minute.

Does not prove which documents are silent: tests/functions does.
"""

from __future__ import annotations

import pytest

from infra.stall_watchdog import StallWatchdog, StallWatchdogArgs
from tests.infra.samples import FUNCTION_SETTINGS, allowed, policy, publishing
from tests.mock_engine import SUFFIX, Graph, arn, run

FUNCTION_ARN = arn("lambda", f"function:watchdog-function-{SUFFIX}")
RULE = f"watchdog-every-minute-{SUFFIX}"
TABLE = arn("dynamodb", f"table/progress-table-{SUFFIX}")


def watchdog(fan_out: str = "direct") -> Graph:
    def program() -> None:
        args = StallWatchdogArgs(
            stall_timeout_seconds=120, publishing=publishing(fan_out=fan_out), functions=FUNCTION_SETTINGS
        )
        StallWatchdog("watchdog", args)

    return run(program)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return watchdog()


def test_the_watchdog_is_called_every_minute(graph: Graph) -> None:
    rule = graph.one("EventRule").inputs
    assert rule["scheduleExpression"] == "rate(1 minute)"
    assert graph.one("EventTarget").inputs == {"rule": RULE, "arn": FUNCTION_ARN}


def test_only_its_own_rule_may_call_the_watchdog(graph: Graph) -> None:
    assert graph.one("Permission").inputs == {
        "action": "lambda:InvokeFunction",
        "function": f"watchdog-function-{SUFFIX}",
        "principal": "events.amazonaws.com",
        "sourceArn": arn("events", f"rule/{RULE}"),
    }
    assert "watchdog-permission" in graph.before(graph.one("EventTarget"))


def test_the_watchdog_knows_how_long_is_too_long(graph: Graph) -> None:
    function = graph.one("Function", "watchdog-function").inputs
    assert function["handler"] == "stall_watchdog.handler"
    assert function["environment"]["variables"]["STALL_TIMEOUT_SECONDS"] == "120"
    assert function["timeout"] <= 60, "the next call comes after a minute"


@pytest.mark.parametrize(
    ("fan_out", "granted"),
    [
        (
            "direct",
            {"find-silent-documents-in-progress", "write-states-in-progress", "find-watchers-in-progress"}
            | {"manage-connections-of-api"},
        ),
        ("stream", {"find-silent-documents-in-progress", "write-states-in-progress"}),
    ],
)
def test_the_watchdog_may_find_silent_documents_and_report_like_a_worker(fan_out: str, granted: set[str]) -> None:
    graph = watchdog(fan_out)
    names = {name for name in graph.names("RolePolicy") if name.startswith("watchdog-")}
    assert names == {f"watchdog-{intent}" for intent in granted | {"write-logs", "use-keys-of-progress"}}
    assert policy(graph, "watchdog-find-silent-documents-in-progress") == allowed(
        (["dynamodb:Query"], [f"{TABLE}/index/by_activity"])
    )
