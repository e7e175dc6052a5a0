"""`make logs`: what all functions of a stack say, as they say it, each line with its document.

A line of JSON is shown as a person reads it: time, function, document, level, message and whatever else it says.
Metrics and the lines that Lambda itself writes are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from local.doctor.command import NoOutputs, outputs_of, patient_of
from local.doctor.finding import Patient
from local.running import newest

_POLL_SECONDS = 1.0
# CloudWatch shows a line some seconds after it was written, and not in order.
_LATE_MILLISECONDS = 15_000
_PLATFORM = ("START RequestId", "END RequestId", "REPORT RequestId", "INIT_START", "XRAY TraceId")
# Said already, or of no use to who reads along.
_SHOWN_ALREADY = {"message", "timestamp", "level", "service", "document_id"}
_LEFT_OUT = {"location", "xray_trace_id", "sampling_rate", "function_arn", "function_memory_size", "function_name"}


def logs(options: argparse.Namespace) -> int:
    """0 when it is interrupted. 2: there is nothing to follow."""
    try:
        if not options.stack and not options.outputs:
            options.outputs = newest()
            if options.outputs is None:
                raise NoOutputs("no `make up` runs here; name a stack with --stack, or its outputs with --outputs")
        patient = patient_of(outputs_of(options))
        followed = Followed(patient, since_ms=int((time.time() - 60 * options.minutes) * 1000))
        while True:
            for line in followed.new_lines():
                if options.document in (None, line.document_id):
                    print(line, flush=True)
            time.sleep(_POLL_SECONDS)
    except NoOutputs as error:
        print(f"error: {error}", file=sys.stderr)
    except (BotoCoreError, ClientError) as error:
        print(f"error: the logs cannot be read: {error}", file=sys.stderr)
    return 2


class Line(NamedTuple):
    """at: epoch milliseconds. document_id: None where it is about none."""

    at: int
    function: str
    document_id: str | None
    text: str

    def __str__(self) -> str:
        clock = datetime.fromtimestamp(self.at / 1000).astimezone().strftime("%H:%M:%S.%f")[:-3]
        return _printable(f"{clock}  {self.function:20}  {self.document_id or '-'}  {self.text}")


class _Event(NamedTuple):
    """By which a line is known again; the emulator gives no eventId."""

    function: str
    at: int
    event_id: str | None
    stream: str | None
    text: str


class Followed:
    """The functions' log groups, each asked again from a little before what was seen last."""

    def __init__(self, patient: Patient, since_ms: int) -> None:
        self._logs = patient.client("logs")
        self._functions = dict(patient.functions)
        self._from = dict.fromkeys(self._functions, since_ms)
        self._seen: set[_Event] = set()

    def new_lines(self) -> list[Line]:
        """In the order of their times."""
        lines = [line for function in self._functions for line in self._lines_of(function)]
        self._seen = {event for event in self._seen if event.at >= self._from[event.function]}
        return sorted(lines, key=lambda line: line.at)

    def _lines_of(self, function: str) -> Iterator[Line]:
        newest = 0
        for event in self._events(function):
            at, text = event["timestamp"], event["message"].rstrip()
            newest = max(newest, at)
            seen = _Event(function, at, event.get("eventId"), event.get("logStreamName"), text)
            if seen not in self._seen:
                self._seen.add(seen)
                if (line := line_of(at, function, text)) is not None:
                    yield line
        self._from[function] = max(self._from[function], newest - _LATE_MILLISECONDS)

    def _events(self, function: str) -> Iterator[dict[str, Any]]:
        group = f"/aws/lambda/{self._functions[function]}"
        paginator = self._logs.get_paginator("filter_log_events")
        try:
            for page in paginator.paginate(logGroupName=group, startTime=self._from[function]):
                yield from page["events"]
        except self._logs.exceptions.ResourceNotFoundException:
            return  # it has said nothing yet


def line_of(at: int, function: str, text: str) -> Line | None:
    """None for what nobody reads along for."""
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        return None if not text or text.startswith(_PLATFORM) else Line(at, function, None, text)
    if "_aws" in said or str(said.get("type", "")).startswith("platform."):
        return None
    document_id = said.get("document_id")
    return Line(at, function, document_id if isinstance(document_id, str) else None, _words(said))


def _words(said: Mapping[str, Any]) -> str:
    more = {name: value for name, value in said.items() if name not in _SHOWN_ALREADY | _LEFT_OUT}
    told = (f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in more.items())
    return " ".join((str(said.get("level", "")), str(said.get("message", "")), *told)).strip()


def _printable(text: str) -> str:
    """A document's id or a message may hold what moves a terminal's cursor."""
    return "".join(ch if ch.isprintable() or ch in "\n\t" else "\N{REPLACEMENT CHARACTER}" for ch in text)
