"""The saved queries: where they look, and that they ask for fields that somebody writes.

Does not prove that Logs Insights takes them: the emulator finds no fields in lines, and counts nothing.
"""

from __future__ import annotations

import json
import re

import pytest

from infra.log_queries import QUERIES, LogQueries, LogQuery
from infra.websocket_stage import ACCESS_LOG_FORMAT
from tests.infra.samples import MONITORED
from tests.mock_engine import PROJECT_ROOT, run

_WORDS = {
    *("fields", "filter", "sort", "limit", "stats", "by", "as", "and", "or", "in", "asc", "desc"),
    *("count", "sum", "max", "bin"),
}


def fields_of(query: LogQuery) -> set[str]:
    """The fields that a query reads, without those that it makes and what CloudWatch itself knows."""
    made = set(re.findall(r"\bas (\w+)", query.query))
    bare = re.sub(r'"[^"]*"', "", query.query)
    return set(re.findall(r"(?<![@\w])[A-Za-z]\w+", bare)) - made - _WORDS


def test_each_query_is_saved_under_the_stack_s_name_with_its_log_groups() -> None:
    graph = run(lambda: LogQueries("queries", MONITORED))
    saved = {each.inputs["name"]: each.inputs for each in graph.of("QueryDefinition")}
    assert set(saved) == {f"{MONITORED.name}/{query.name}" for query in QUERIES}
    assert saved[f"{MONITORED.name}/life of a document"]["logGroupNames"] == [
        "/aws/lambda/docprogress-test-handler",
        "/aws/lambda/docprogress-test-worker",
        "/aws/lambda/docprogress-test-watchdog",
    ]
    assert saved[f"{MONITORED.name}/connections that failed"]["logGroupNames"] == [MONITORED.access_log_group]


@pytest.mark.parametrize("query", [each for each in QUERIES if each.of == "access"], ids=lambda query: query.name)
def test_a_query_of_the_access_log_reads_fields_that_it_has(query: LogQuery) -> None:
    assert fields_of(query) - json.loads(ACCESS_LOG_FORMAT).keys() == set()


@pytest.mark.parametrize("query", [each for each in QUERIES if each.of == "functions"], ids=lambda query: query.name)
def test_a_query_of_the_functions_reads_fields_that_some_line_has(query: LogQuery) -> None:
    sources = "".join(
        file.read_text() for folder in ("functions", "library") for file in (PROJECT_ROOT / folder).rglob("*.py")
    )
    # Written by the logger itself.
    own = {"service", "level", "message"}
    unwritten = {name for name in fields_of(query) - own if f'"{name}"' not in sources and f"{name}=" not in sources}
    assert unwritten == set()


@pytest.mark.parametrize("query", [each for each in QUERIES if each.of == "functions"], ids=lambda query: query.name)
def test_a_query_looks_for_messages_that_some_line_says(query: LogQuery) -> None:
    sources = "".join(
        file.read_text() for folder in ("functions", "library") for file in (PROJECT_ROOT / folder).rglob("*.py")
    )
    said = set(re.findall(r'"([^"]+)"', query.query)) - {"REPLACE-ME"}
    assert {message for message in said if f'"{message}"' not in sources} == set()
