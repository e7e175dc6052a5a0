"""The picture of the demo: what is made of a terminal's output.

Does not prove that the demo looks so: the picture is drawn of a real one by hand, and looked at.
"""

from __future__ import annotations

import io
import re

from rich.console import Console
from rich.live import Live
from rich.text import Text

from tools.demo_picture import DOCUMENTS, PICTURE, picture, screen


def said_by_rich() -> str:
    """Two bars that are drawn over several times, between two lines that stay."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=40)
    console.print("deployed", style="green")
    with Live(console=console, auto_refresh=False) as live:
        for step in range(3):
            live.update(Text(f"one {step}\ntwo {step}"), refresh=True)
    with console.status("gone at the end"):
        pass
    console.print("done")
    return file.getvalue().replace("\n", "\r\n")  # as a terminal has it


def test_of_what_is_drawn_over_the_last_stands() -> None:
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in screen(said_by_rich())]
    assert [line for line in lines if line] == ["deployed", "one 2", "two 2", "done"]


def test_the_picture_has_colours_and_asks_no_other_site_for_a_font() -> None:
    svg = picture(screen(said_by_rich()))
    assert "deployed" in svg
    assert len(set(re.findall(r"fill: (#\w+)", svg))) > 1
    assert 'url("http' not in svg


def test_the_picture_in_the_readme_is_of_such_a_demo() -> None:
    shown = PICTURE.read_text(encoding="utf-8")
    assert 'url("http' not in shown
    assert all(name in shown for name in DOCUMENTS)
    assert shown.count("completed") == len(DOCUMENTS)
