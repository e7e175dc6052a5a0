"""What the pages of this repository show: blocks of code, and commands in their sentences."""

from __future__ import annotations

import re
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
# A changelog tells what was, not what to do.
PAGES = sorted(
    set(
        subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    )
    - {"CHANGELOG.md"}
)
# In a sentence, `pip install` is a name; with something to install, it is a command.
_ALWAYS = ("make", "pulumi", "aws", "python")
_WITH_ARGUMENTS = ("npx", "npm", "pip", "git", "gh", "docker", "curl", "node", ".venv/bin/python")


@dataclass(frozen=True)
class Block:
    """A block of code, or a command in a sentence, which has the language `command`.

    Attributes:
        language: The word after the fence. A block that is only indented is `sh`.
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    """All of a page, in its order."""
    return list(_blocks(page))


def _blocks(page: str) -> Iterator[Block]:
    line = 0
    for token in MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text(encoding="utf-8")):
        line = token.map[0] + 1 if token.map else line
        if token.type == "fence":
            yield Block(page, line, token.info.strip(), textwrap.dedent(token.content))
        elif token.type == "code_block":
            yield Block(page, line, "sh", token.content)
        for child in token.children or []:
            if child.type == "code_inline" and _is_command(child.content):
                yield Block(page, line, "command", child.content)


def _is_command(text: str) -> bool:
    words = re.split(r"\s+", text.strip())
    return (words[0] in _ALWAYS and len(words) > 1) or (words[0] in _WITH_ARGUMENTS and len(words) > 2)
