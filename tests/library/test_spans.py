"""The spans of OpenTelemetry, by its own API and SDK, and what they cost a program that has none.

Does not prove that an exporter takes them.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from docprogress.announcer import Announcer
from docprogress.document import Connection
from docprogress.tracker import ProgressTracker
from tests.functions.fakes import InMemoryStore, RecordingPoster
from tests.mock_engine import PROJECT_ROOT


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def test_a_document_is_a_start_its_updates_and_an_end_with_a_fan_out_each(exporter: InMemorySpanExporter) -> None:
    store = InMemoryStore(time.time)
    store.subscribe("d", Connection("c", int(time.time()) + 60))
    announcer = Announcer(store, RecordingPoster())
    with trace.get_tracer("worker").start_as_current_span("request") as request:
        tracker = ProgressTracker(
            "d", store=store, deliver=announcer.announce, correlation_id="page-1", max_messages_per_second=1000.0
        )
        with tracker:
            tracker.start(total=2)
            tracker.advance()
    spans = exporter.get_finished_spans()
    names = [span.name for span in spans]
    assert set(names) >= {"docprogress.start", "docprogress.fan_out", "docprogress.end", "request"}
    assert names.count("docprogress.fan_out") >= 2
    assert {span.context.trace_id for span in spans if span.context} == {request.get_span_context().trace_id}, (
        "what the sender's thread does belongs to the request"
    )
    for span in spans:
        if span.name != "request":
            assert span.attributes is not None
            assert (span.attributes["docprogress.document_id"], span.attributes["docprogress.correlation_id"]) == (
                *("d", "page-1"),
            )
    last = _last(spans, "docprogress.fan_out")
    assert last.attributes is not None
    assert (last.attributes["docprogress.delivered"], last.attributes["docprogress.status"]) == (
        *(1, "processing_complete"),
    )
    end = _last(spans, "docprogress.end")
    assert last.parent is not None
    assert end.context is not None
    assert last.parent.span_id == end.context.span_id


def _last(spans: tuple[ReadableSpan, ...], name: str) -> ReadableSpan:
    return [span for span in spans if span.name == name][-1]


def test_a_program_that_does_not_trace_itself_imports_nothing_for_it() -> None:
    program = """
import sys
from docprogress.spans import span
import docprogress.tracker, docprogress.announcer
with span("start", document_id="d") as started:
    assert started is None
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    environment = {"PYTHONPATH": str(PROJECT_ROOT / "library")}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("[]\n", "")
