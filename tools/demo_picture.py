"""`python -m tools.demo_picture`: draws docs/images/demo.svg: the terminal after a demo of three documents.

The demo runs for it, on a quiet machine in some ten seconds. The picture is looked at before it is committed.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

from local.sample_pdf import write_sample_pdf

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "demo.svg"
DOCUMENTS = {"annual-report.pdf": 180, "contract.pdf": 60, "thesis.pdf": 260}
_WIDTH, _HEIGHT = 84, 40
_MOVE = re.compile(r"(\x1b\[\??\d*[A-HJKhl]|\r|\n)")
_FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"


def screen(said: str) -> list[str]:
    """The lines that stand there after all that was said; of a terminal's movements, Rich uses few. Colours stay."""
    lines, row = [""], 0
    for part in _MOVE.split(said):
        up = re.fullmatch(r"\x1b\[(\d*)A", part)
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif up:
            row = max(0, row - int(up[1] or 1))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif not _MOVE.fullmatch(part):
            lines[row] += part
    return lines


def picture(lines: list[str]) -> str:
    console = Console(record=True, width=_WIDTH, file=io.StringIO())
    for line in lines:
        console.print(Text.from_ansi(line))
    # Rich's own font comes from another site, which a picture in a page may not load.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="docprogress"), flags=re.DOTALL)
    return svg.replace("Fira Code, monospace", _FONT)


def demo_on_a_terminal() -> str:
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in DOCUMENTS]
        for file in files:
            write_sample_pdf(file, pages=DOCUMENTS[file.name])
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _HEIGHT, _WIDTH, 0, 0))
        command = [sys.executable, "-m", "local", "demo", "--", *map(str, files)]
        environment = {**os.environ, "TERM": "xterm-256color"}
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as demo:
            os.close(theirs)
            said = b""
            try:
                while read := os.read(ours, 65536):
                    said += read
            except OSError:  # EIO: so a terminal of Linux says that nobody has its other end open
                pass
        os.close(ours)
        if demo.returncode:
            raise SystemExit(said.decode(errors="replace"))
    return said.decode()


if __name__ == "__main__":
    called = f'$ make demo PDF="{" ".join(DOCUMENTS)}"'
    PICTURE.write_text(picture([called, *screen(demo_on_a_terminal())]).rstrip() + "\n", encoding="utf-8")
    print(PICTURE.relative_to(ROOT))
