"""Makes what the documentation shows of the code: `python -m tools.docs_from_code [--image]`.

docs/configuration.md is made of Pulumi.yaml, and the table of alarms goes between its markers in docs/operations.md.
With --image, docs/images/dashboard.png is drawn from the JSON that is deployed, over made-up figures; that takes
Debian's package `chromium`.
"""

from __future__ import annotations

import argparse
import asyncio
import html
import json
import math
import random
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from infra.alarms import ALARMS, alarms_in_markdown
from infra.dashboard import DashboardArgs, dashboard_body
from infra.monitored import Monitored

DOCS = Path(__file__).parent.parent / "docs"
BEGIN, END = "<!-- alarms: begin (python -m tools.docs_from_code) -->", "<!-- alarms: end -->"

_CONFIGURATION = """# Configuration

`pulumi config set docprogress:KEY VALUE` sets a key of the selected stack. An entry of a list has an index:
`pulumi config set --path 'docprogress:allowedOrigins[0]' https://app.example.com`. A value that is not allowed stops
the plan with the command that cures it. This table is made from [`Pulumi.yaml`](../Pulumi.yaml).

| key | type | default | what it does |
|---|---|---|---|
"""

_COLUMN, _ROW = 64, 38  # pixels of CloudWatch's grid
_POINTS = 72  # six hours of five minutes
_COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f")
_FAULTY = "delivery-throttled-documents-processor"

EXAMPLE = Monitored(
    name="docprogress-prod-a1b2c3d4e5",
    region="eu-west-1",
    api_id="a1b2c3d4e5",
    stage_name="prod",
    access_log_group="/aws/apigateway/docprogress-prod/prod",
    table_name="progress-table-1a2b3c4",
    functions={
        name: f"docprogress-prod-{name}" for name in ("connection-handler", "documents-processor", "stall-watchdog")
    },
    services={
        name: f"docprogress-prod-{name}" for name in ("connection-handler", "documents-processor", "stall-watchdog")
    },
    handler="connection-handler",
    announcers=("documents-processor", "stall-watchdog"),
    workers=("documents-processor",),
    watchdog="stall-watchdog",
)


def configuration() -> str:
    """docs/configuration.md as Pulumi.yaml has it."""
    rows = []
    for key, declared in yaml.safe_load((DOCS.parent / "Pulumi.yaml").read_text())["config"].items():
        description = " ".join(declared["description"].split())
        default = declared["default"]
        if isinstance(default, bool) or default == "":
            default = json.dumps(default)
        rows.append(f"| `{key}` | {declared['type']} | `{default}` | {description} |\n")
    return _CONFIGURATION + "".join(rows)


def with_alarms(text: str) -> str:
    """A document with the table of alarms between its markers as the code has it.

    Raises:
        ValueError: the markers are not there.
    """
    if BEGIN not in text or END not in text:
        raise ValueError(f"The document has no place for the alarms: {BEGIN} and {END}.")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{alarms_in_markdown()}\n{END}{rest.partition(END)[2]}"


def dashboard_svg() -> str:
    names = [f"{row.name}-{part}".removesuffix("-") for row in ALARMS for part in EXAMPLE.parts(row.of, row.namespace)]

    async def body() -> dict[str, Any]:  # Pulumi's outputs need a loop, even to be thrown away
        return dashboard_body(DashboardArgs(monitored=EXAMPLE, alarm_arns=names))

    widgets = asyncio.run(body())["widgets"]
    width = 24 * _COLUMN
    height = max(each["y"] + each["height"] for each in widgets) * _ROW
    drawn = "".join(map(_widget, widgets))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">'
        f'<rect width="100%" height="100%" fill="#f2f3f3"/>{drawn}</svg>'
    )


def _widget(widget: dict[str, Any]) -> str:
    x, y = widget["x"] * _COLUMN + 4, widget["y"] * _ROW + 4
    width, height = widget["width"] * _COLUMN - 8, widget["height"] * _ROW - 8
    properties = widget["properties"]
    match widget["type"]:
        case "alarm":
            inner = _alarm_tiles(properties["alarms"], width)
        case "log":
            inner = _table()
        case _:
            inner = _chart(properties, width - 60, height - 30)
    return (
        f'<g transform="translate({x},{y})"><rect width="{width}" height="{height}" rx="4" fill="white" '
        f'stroke="#d5dbdb"/><text x="10" y="18" font-size="13" font-weight="bold">{html.escape(properties["title"])}'
        f"</text>{inner}</g>"
    )


def _alarm_tiles(names: Sequence[str], width: int) -> str:
    tiles = []
    for number, name in enumerate(names):
        row, column = divmod(number, 4)
        colour = "#d13212" if name == _FAULTY else "#1d8102"
        x, y = 10 + column * (width - 12) / 4, 28 + row * _ROW
        tiles.append(
            f'<rect x="{x}" y="{y}" width="{(width - 12) / 4 - 8}" height="{_ROW - 8}" fill="none" stroke="{colour}"/>'
            f'<rect x="{x}" y="{y}" width="5" height="{_ROW - 8}" fill="{colour}"/>'
            f'<text x="{x + 12}" y="{y + 19}" font-size="12">{html.escape(name)}</text>'
        )
    return "".join(tiles)


def _table() -> str:
    """What a query answers, made up too: a count for each function."""
    return "".join(
        f'<text x="20" y="{50 + 22 * row}" font-size="12">{html.escape(str(name))}</text>'
        f'<text x="{_COLUMN * 7}" y="{50 + 22 * row}" font-size="12" text-anchor="end">{31 - 14 * row}</text>'
        for row, name in enumerate(EXAMPLE.functions.values())
    )


def _chart(properties: dict[str, Any], width: int, height: int) -> str:
    lines = [(_label(line), _figures(line, properties)) for line in properties["metrics"]]
    legend_rows = -(-len(lines) // 2)
    plot = height - 24 - 14 * legend_rows
    if properties["stacked"]:
        below = [0.0] * _POINTS
        stacked = []
        for label, figures in lines:
            below = [a + b for a, b in zip(below, figures, strict=True)]
            stacked.append((label, below))
        lines = stacked
    top = max(max(figures) for _, figures in lines) or 1.0
    parts = []
    for share in (0, 0.5, 1):
        y = 30 + plot * (1 - share)
        value = f"{top * share:,.{0 if top > 20 else 1}f}"
        parts.append(
            f'<text x="44" y="{y + 4:.0f}" font-size="9" text-anchor="end" fill="#687078">{value}</text>'
            f'<line x1="48" x2="{48 + width}" y1="{y:.0f}" y2="{y:.0f}" stroke="#eaeded"/>'
        )
    for number, (label, figures) in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(
            f"{48 + at * width / (_POINTS - 1):.1f},{30 + plot * (1 - value / top):.1f}"
            for at, value in enumerate(figures)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        row, column = divmod(number, 2)
        x, y = 48 + column * width / 2, 46 + plot + 14 * row
        parts.append(
            f'<rect x="{x}" y="{y - 7}" width="8" height="8" fill="{colour}"/>'
            f'<text x="{x + 12}" y="{y}" font-size="10">{html.escape(label)}</text>'
        )
    return "".join(parts)


def _label(line: list[Any]) -> str:
    return str(line[-1]["label"])


def _figures(line: list[Any], properties: dict[str, Any]) -> list[float]:
    """Made up, and always the same: busy in the middle, and faults only where the red alarm is."""
    label = _label(line)
    rng = random.Random(zlib.crc32(f"{properties['title']} {label}".encode()))  # noqa: S311  a drawing
    wave = [math.sin(math.pi * at / _POINTS) * rng.uniform(0.8, 1.2) for at in range(_POINTS)]
    metric = line[1] if len(line) > 1 else ""  # metric math has its options alone
    if "throttled" in label and "documents-processor" in label:
        return [400.0 * rng.random() if 44 <= at <= 56 else 0.0 for at in range(_POINTS)]
    if any(word in metric for word in ("Error", "Throttle", "Failed", "Stalled")):
        return [float(rng.random() < 0.02) for _ in range(_POINTS)]
    size = {"p50": 12, "p95": 45, "p99": 160}.get(label.rpartition(" ")[2], rng.uniform(20, 60))
    if "Unreadable" in metric or "stall-watchdog" in label:
        size /= 20
    if "Delivered" in metric or "MessageCount" in metric:
        size *= 100
    return [size * (0.3 + value) for value in wave]


def draw_dashboard(path: Path) -> None:
    # Only here: the table must be made without a browser.
    from playwright.sync_api import sync_playwright

    svg = dashboard_svg()  # it runs a loop of its own, and a browser has one too
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 24 * _COLUMN, "height": 800})
        page.set_content(f'<body style="margin:0">{svg}</body>')
        page.locator("svg").screenshot(path=path)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.docs_from_code")
    parser.add_argument("--image", action="store_true", help="draw docs/images/dashboard.png too")
    (DOCS / "configuration.md").write_text(configuration())
    operations = DOCS / "operations.md"
    operations.write_text(with_alarms(operations.read_text()))
    if parser.parse_args().image:
        draw_dashboard(DOCS / "images" / "dashboard.png")


if __name__ == "__main__":
    main()
