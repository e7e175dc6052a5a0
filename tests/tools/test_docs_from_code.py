"""What the documentation shows of the code.

Does not prove that Chromium draws the picture: that is made by hand, and looked at.
"""

from __future__ import annotations

import html
import re

import pytest

from infra.alarms import ALARMS
from infra.dashboard import GRAPHS
from tools.docs_from_code import BEGIN, END, dashboard_svg, with_alarms


def test_the_table_of_alarms_replaces_what_was_between_its_markers_and_nothing_else() -> None:
    text = with_alarms(f"before\n{BEGIN}\nof yesterday\n{END}\nafter\n")
    assert text.startswith(f"before\n{BEGIN}\n| alarm |")
    assert text.endswith(f"|\n{END}\nafter\n")
    assert "of yesterday" not in text
    assert with_alarms(text) == text


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for the alarms"):
        with_alarms("# Operations\n")


def test_the_picture_shows_every_graph_and_alarm_of_the_deployed_json() -> None:
    texts = {html.unescape(text) for text in re.findall(r">([^<]+)</text>", dashboard_svg())}
    assert {graph.title for graph in GRAPHS if graph.of != "stream"} <= texts
    for row in ALARMS:
        if row.of not in ("stream", "dead letters"):
            assert any(text.startswith(row.name) for text in texts), row.name
