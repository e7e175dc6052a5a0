"""`python -m benchmarks`: delivery against its peers, memory, cold start and latency, as tables."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from rich.console import Console
from rich.table import Table

from benchmarks import c_client, cold_start, latency, memory, speed, stragglers
from benchmarks.clients import ENGINE, LIMIT

DOCUMENT = speed.REPOSITORY / "docs" / "benchmarks.md"
BEGIN, END = "<!-- results: begin (make bench ARGS=--write) -->", "<!-- results: end -->"
PARTS = ("http", "tls", "stragglers", "memory", "cold-start", "latency")


@dataclass(frozen=True, slots=True)
class Section:
    """A table of results, with the goals it answers and what was left out."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]


def goal(name: str, reached: float, asked: float, *, at_most: bool = False) -> str:
    kept = reached <= asked if at_most else reached >= asked
    comparison = "at most" if at_most else "at least"
    return f"{name}: {reached:.2f}, goal {comparison} {asked:g}: {'reached' if kept else 'NOT reached'}"


def speed_section(results: dict[str, speed.Speed], left_out: dict[str, str], *, tls: bool) -> Section:
    engine = results[ENGINE]
    rows = [
        [
            name,
            f"{result.posts_per_second:,.0f}",
            f"{engine.posts_per_second / result.posts_per_second:.2f}",
            f"{result.cpu_us_per_post:,.1f}",
            f"{result.cpu_us_per_post / engine.cpu_us_per_post:.2f}",
        ]
        for name, result in results.items()
    ]
    notes = [f"{name} was left out: {reason}" for name, reason in left_out.items()]
    if c_client.NAME in results:
        ratio = engine.cpu_us_per_post / results[c_client.NAME].cpu_us_per_post
        name = f"this engine / {c_client.NAME}, by CPU"
        notes.append(goal(name, ratio, 2.1, at_most=True) if tls else f"{name}: {ratio:.2f}")
    if not tls:
        best_boto3 = max(
            (name for name in results if name.startswith("boto3")), key=lambda name: results[name].posts_per_second
        )
        for name, asked in ((best_boto3, 15), ("awscrt", 2), (LIMIT, 0.7)):
            cheaper = results[name].cpu_us_per_post / engine.cpu_us_per_post
            faster = engine.posts_per_second / results[name].posts_per_second
            notes.append(f"{goal(f'this engine / {name}', faster, asked)} (by CPU: {cheaper:.2f})")
    return Section(
        f"Posts, {'TLS' if tls else 'plain HTTP'}",
        ["client", "posts/s", "engine faster by", "CPU µs/post", "engine cheaper by"],
        rows,
        notes,
    )


def stragglers_section(results: dict[str, dict[str, float]]) -> Section:
    return Section(
        "An update to 200 watchers, beside a bad one",
        ["client", "all healthy, ms", "one throttles, ms", "one hangs, ms"],
        [[name, *(f"{by_kind[kind]:,.1f}" for kind in stragglers.KINDS)] for name, by_kind in results.items()],
        [],
    )


def memory_section(peaks: dict[int, float]) -> Section:
    smallest, largest = min(peaks), max(peaks)
    return Section(
        "Peak memory of the posting process",
        ["subscribers", "MiB"],
        [[f"{size:,}", f"{peak:.1f}"] for size, peak in peaks.items()],
        [goal(f"{largest:,} / {smallest:,} subscribers", peaks[largest] / peaks[smallest], 1.15, at_most=True)],
    )


def cold_start_section(starts: dict[str, cold_start.Start], skipped: dict[str, str]) -> Section:
    bare = starts[cold_start.BARE]
    goals = [
        goal(f"{name}, by CPU", starts[name].cpu_ms / bare.cpu_ms, asked, at_most=True)
        for name, asked in cold_start.GOALS.items()
        if name in starts
    ]
    return Section(
        "Cold start, import and client creation",
        ["handler", "ms", "of bare boto3", "CPU ms", "of bare boto3's"],
        [
            [
                name,
                f"{start.ms:.0f}",
                f"{start.ms / bare.ms:.2f}",
                f"{start.cpu_ms:.0f}",
                f"{start.cpu_ms / bare.cpu_ms:.2f}",
            ]
            for name, start in starts.items()
        ],
        [*goals, *(f"{name} was left out: {reason}" for name, reason in skipped.items())],
    )


def latency_section(measured: list[float] | str) -> Section:
    title = "Publish to receive, on the emulator"
    if isinstance(measured, str):
        return Section(title, ["ms"], [], [f"left out: {measured}"])
    percentiles = quantiles(measured, n=100, method="inclusive")
    row = [str(len(measured)), f"{median(measured):.1f}", f"{percentiles[98]:.1f}", f"{max(measured):.1f}"]
    return Section(title, ["messages", "p50 ms", "p99 ms", "longest ms"], [row], [])


def as_markdown(section: Section) -> str:
    lines = [f"### {section.title}", ""]
    if section.rows:
        lines += [f"| {' | '.join(section.columns)} |", f"|---{'|---:' * (len(section.columns) - 1)}|"]
        lines += [f"| {' | '.join(row)} |" for row in section.rows]
        lines.append("")
    lines += [f"- {note}" for note in section.notes]
    return "\n".join(lines).rstrip() + "\n"


def show(console: Console, section: Section) -> None:
    table = Table(*section.columns, title=section.title, title_justify="left")
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for row in section.rows:
        table.add_row(*row)
    if section.rows:
        console.print(table)
    else:
        console.print(section.title)
    for note in section.notes:
        console.print(f"  {note}", style="bold red" if "NOT" in note else None, highlight=False)
    console.print()


def machine(busy: float) -> str:
    processor = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        models = [line.split(":")[1].strip() for line in cpu_info.read_text().splitlines() if "model name" in line]
        processor = models[0] if models else processor
    pinned = "server and client pinned to a core each" if speed.cores() else "not pinned"
    load = f", load average {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    if busy:
        load += f" and {busy:.1f} AT THE START: others were busy, trust the CPU columns, not the clock's"
    return (
        f"{processor}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}; {pinned}{load}"
    )


def run(arguments: argparse.Namespace, console: Console) -> list[Section]:
    quick = arguments.quick
    rounds = 1 if quick else arguments.rounds
    sections = []
    with console.status("") as status:

        def progress(what: str) -> None:
            status.update(what)

        def add(section: Section) -> None:
            sections.append(section)
            show(console, section)

        for part in arguments.only or PARTS:
            if part in ("http", "tls"):
                round_seconds = 0.05 if quick else speed.ROUND_SECONDS
                tls = part == "tls"
                measured = speed.measure(tls=tls, rounds=rounds, round_seconds=round_seconds, progress=progress)
                add(speed_section(*measured, tls=tls))
            elif part == "stragglers":
                add(stragglers_section(stragglers.measure(updates=2 if quick else 5, progress=progress)))
            elif part == "memory":
                sizes = memory.SIZES[:2] if quick else memory.SIZES
                add(memory_section(memory.measure(rounds=1 if quick else rounds, sizes=sizes, progress=progress)))
            elif part == "cold-start":
                add(cold_start_section(*cold_start.measure(rounds=1 if quick else 2 * rounds, progress=progress)))
            else:
                add(latency_section(latency.measure(documents=3 if quick else 100, progress=progress)))
    return sections


def write(sections: Sequence[Section], about: str) -> None:
    """Put the results between the document's two marks. Raises ValueError where they are missing."""
    text = DOCUMENT.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{DOCUMENT} needs the lines {BEGIN!r} and {END!r}: the results go between them")
    when = datetime.datetime.now(datetime.UTC).date().isoformat()
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    head = f"{when}, `{command}`\n\n{about}\n"
    body = "\n".join([head, *map(as_markdown, sections)])
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{body}\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run of seconds; its figures mean nothing")
    parser.add_argument("--rounds", type=int, default=5, help="of which the median is taken (default: 5)")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="these parts alone")
    parser.add_argument("--write", action="store_true", help="put the results into docs/benchmarks.md")
    arguments = parser.parse_args()
    console = Console()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    sections = run(arguments, console)
    about = machine(load if load > 1 else 0.0)
    console.print(about, highlight=False)
    if arguments.write:
        write(sections, about)


if __name__ == "__main__":
    main()
