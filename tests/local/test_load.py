"""The load: pages on a document of a stack, and what the report makes of them.

Does not prove what AWS delivers, nor its throttles, which the emulator does not have.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local.doctor.command import NoOutputs, patient_of
from local.load import MOST_WATCHERS
from local.load.command import run
from local.load.report import Load, lines, report
from local.load.watchers import Watcher
from tests.local.conftest import DeployedStack
from tests.local.scenarios import eventually, rows_of_connections
from tests.local.test_doctor import answering, outputs_of

ROOT = Path(__file__).parents[2]


def load(*arguments: str, outputs: str = "{}") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "local", "load", "--outputs", "-", *arguments]
    return subprocess.run(command, cwd=ROOT, input=outputs, capture_output=True, text=True, timeout=120, check=False)


def test_fifty_pages_hear_a_document_to_its_end_and_leave_nothing(stack: DeployedStack) -> None:
    before = len(rows_of_connections(stack))
    done = load("--watchers", "50", "--updates", "4", "--json", outputs=json.dumps(outputs_of(stack)))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["watching"], found["endsLost"], found["refused"]) == (50, 0, {})
    assert found["updates"] == 4
    assert 1 <= found["updatesSent"] <= 4, "a busy machine tells several updates at once"
    for name in ("connectMilliseconds", "answerMilliseconds", "heardMilliseconds", "endMilliseconds"):
        assert 0 < found[name]["p50"] <= found[name]["p95"] <= found[name]["p99"] <= found[name]["max"]
    assert eventually(lambda: len(rows_of_connections(stack)) <= before)
    items = stack.client("dynamodb").scan(TableName=stack.outputs["tableName"], ConsistentRead=True)["Items"]
    assert [item for item in items if "load-" in item["pk"]["S"]] == []


def test_a_stack_with_tokens_is_loaded_with_one(jwt_stack: DeployedStack) -> None:
    assert jwt_stack.issuer is not None
    patient = patient_of(outputs_of(jwt_stack))
    with pytest.raises(NoOutputs, match="give one with --token"):
        run(patient, 2, 1, quiet=True)
    found = run(dataclasses.replace(patient, token=jwt_stack.issuer.token()), 2, 1, quiet=True)
    assert (found["watching"], found["endsLost"]) == (2, 0)


def test_a_protected_stack_is_loaded_only_by_somebody_who_means_it(stack: DeployedStack) -> None:
    patient = patient_of(outputs_of(stack))
    table = patient.client("dynamodb").describe_table(TableName=stack.outputs["tableName"])["Table"]
    protected = answering(patient, "dynamodb", describe_table={"Table": {**table, "DeletionProtectionEnabled": True}})
    with pytest.raises(NoOutputs, match=r"2 connections and 6 messages, some 0\.00 dollars, .* --yes means it"):
        run(protected, 2, 1, quiet=True)


def test_a_stage_that_is_throttled_to_nothing_is_not_waited_for(stack: DeployedStack) -> None:
    closed = {"DefaultRouteSettings": {"ThrottlingRateLimit": 0.0}, "RouteSettings": {}}
    with pytest.raises(NoOutputs, match="throttled to 0"):
        run(answering(patient_of(outputs_of(stack)), "apigatewayv2", get_stage=closed), 2, 1, quiet=True)


def test_pages_that_are_refused_are_counted_by_their_status(jwt_stack: DeployedStack) -> None:
    assert jwt_stack.issuer is not None
    patient = patient_of(outputs_of(jwt_stack))
    found = run(dataclasses.replace(patient, token=jwt_stack.issuer.token(aud="another")), 2, 1, quiet=True)
    assert (found["watching"], found["refused"]) == (0, {"500": 2}), "the emulator's answer to a token that is refused"
    assert any("could not watch" in each for each in found["advice"])
    with pytest.raises(NoOutputs, match="names nobody"):
        run(dataclasses.replace(patient, token="opaque"), 2, 1, quiet=True)


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "many", str(MOST_WATCHERS + 1)])
def test_a_number_of_pages_that_is_none_or_too_many_is_refused(number: str) -> None:
    done = load(f"--watchers={number}")
    assert (done.returncode, f"is none of 1 to {MOST_WATCHERS:,}" in done.stderr) == (2, True)


def test_what_is_no_stack_is_said_in_one_line() -> None:
    done = load()
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "these are no outputs of docprogress" in done.stderr


# What the report makes of what was seen

SEEN = Load(emulated=False, updates=3, seconds=1.0, messages_per_second=4.0, rate=1000.0, throttled=0, failed=0)


def watcher(*sequences: int, seconds: float = 0.01, **seen: Any) -> Watcher:
    heard = dict.fromkeys(sequences, seconds)
    return Watcher(
        **{"connect_seconds": 0.1, "answer_seconds": 0.1, "end_seconds": 0.02, "heard_seconds": heard, **seen}
    )


def test_an_update_that_one_page_heard_and_another_did_not_was_overtaken() -> None:
    found = report(SEEN, [watcher(2, 3, 4), watcher(2, 4), watcher(4)])
    assert (found["updatesSent"], found["updatesOvertaken"]) == (3, 3)
    assert any("overtaken" in each for each in found["advice"])


def test_an_end_that_did_not_come_is_lost() -> None:
    found = report(SEEN, [watcher(2), watcher(2, end_seconds=None)])
    assert found["endsLost"] == 1
    assert "1 never heard the end: make doctor, then the log of the one that posts." in found["advice"]


def test_who_could_not_watch_counts_for_no_time() -> None:
    found = report(SEEN, [watcher(2), Watcher(refused="429"), Watcher(refused="429")])
    assert (found["watching"], found["refused"], found["connectMilliseconds"]["max"]) == (1, {"429": 2}, 100.0)
    assert found["advice"][0].startswith("2 could not watch (429): pulumi config set apiThrottleRate")


def test_times_are_quantiles_of_all_updates_of_all_pages() -> None:
    found = report(SEEN, [watcher(number, seconds=number / 1000) for number in range(1, 101)])
    assert found["heardMilliseconds"] == {"p50": 50.5, "p95": 95.0, "p99": 99.0, "max": 100.0}


def test_an_end_by_somebody_else_has_no_time_and_is_not_lost() -> None:
    found = report(SEEN, [watcher(2, end_seconds=float("nan"))])
    assert (found["endsLost"], found["endMilliseconds"]) == (0, None)


def test_the_advice_sizes_the_stack_by_the_quota_and_the_throttle() -> None:
    said = "\n".join(report(SEEN, [watcher(2)] * 500)["advice"])
    assert "500 watchers takes 2,000 posts a second at maxMessagesPerSecond 4" in said
    assert "so 5 such documents at once" in said
    assert "500 pages need 1 s to be back, at apiThrottleRate 1,000" in said


def test_every_number_is_shown_to_people_too() -> None:
    shown = "\n".join(lines(report(SEEN, [watcher(2, out_of_order=3, repeated=5), Watcher(refused="401")])))
    assert "watching      1 of 2, 1 refused: 401" in shown
    assert "3 out of order, 5 repeated" in shown
    streamed = dataclasses.replace(SEEN, throttled=None, failed=None)
    assert "posted by the table's stream" in "\n".join(lines(report(streamed, [watcher()])))
