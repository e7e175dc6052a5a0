"""The Pulumi CLI as far as the pages use it: settings are kept in files as it keeps them, and nothing is deployed.

`pulumi stack output` gives the outputs of the stack that the tests run on, from the file that DOCS_OUTPUTS names. What
`up` and its like do is for tests/engine; here they only take no option that they do not have.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import yaml

# tests/docs/test_commands.py holds each to the real CLI, where there is one.
OPTIONS = {
    "cancel": {"--stack", "--yes"},
    "config": {"--stack", "--json"},
    "config rm": {"--stack", "--path"},
    "config set": {"--stack", "--path", "--secret"},
    "destroy": {"--stack", "--yes"},
    "import": {"--stack", "--yes", "--protect"},
    "install": set(),
    "login": set(),
    "package add": set(),
    "package get-schema": set(),
    "preview": {"--stack", "--diff", "--json", "--refresh", "--expect-no-changes", "--policy-pack"},
    "refresh": {"--stack", "--yes"},
    "stack": {"--stack", "--show-urns"},
    "stack init": {"--stack"},
    "stack output": {"--stack", "--json", "--show-secrets"},
    "stack rename": {"--stack"},
    "stack select": {"--stack", "--create"},
    "state unprotect": {"--stack", "--yes"},
    "up": {"--stack", "--yes", "--refresh", "--replace", "--skip-preview"},
}
WITH_VALUE = {"--stack", "-s", "--replace", "--policy-pack"}
SELECTED = Path(".selected-stack")


def main(*words: str) -> None:
    command = " ".join(words[:2]) if " ".join(words[:2]) in OPTIONS else words[0] if words else ""
    if command not in OPTIONS:
        sys.exit(f"pulumi: no command {command!r} is known to the stand-in")
    options, arguments = _parsed(words[len(command.split()) :])
    if unknown := options.keys() - OPTIONS[command]:
        sys.exit(f"pulumi: {command} has no option {', '.join(sorted(unknown))}")
    stack = options.get("--stack") or (SELECTED.read_text() if SELECTED.exists() else "dev")
    if command in ("stack init", "stack select"):
        SELECTED.write_text(arguments[0])
    elif command == "stack rename":
        SELECTED.write_text(arguments[0])
        if _file(stack).exists():
            _file(stack).rename(_file(arguments[0]))
    elif command == "stack output":
        outputs = json.loads(Path(os.environ["DOCS_OUTPUTS"]).read_text())
        answer = outputs[arguments[0]] if arguments else outputs
        print(json.dumps(answer) if "--json" in options or not isinstance(answer, str) else answer)
    elif command == "stack" and "--show-urns" in options:
        print("    URN: urn:pulumi:dev::docprogress::aws:apigatewayv2/deployment:Deployment::progress-api-deployment")
    elif command == "config set":
        key, *values = arguments
        change(_file(stack), key, values[0] if values else sys.stdin.read(), is_path="--path" in options)
    elif command == "config rm":
        change(_file(stack), arguments[0], None, is_path="--path" in options)


def _parsed(words: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    options: dict[str, str] = {}
    arguments: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        name = {"-s": "--stack"}.get(name, name)
        if word.startswith("-"):
            options[name] = value if equals else next(rest) if name in WITH_VALUE else ""
        else:
            arguments.append(word)
    return options, arguments


def _file(stack: str) -> Path:
    return Path(f"Pulumi.{stack}.yaml")


def change(file: Path, key: str, text: str | None, *, is_path: bool) -> None:
    """Sets a key of a stack's file as `pulumi config set` does, or takes it out."""
    project = yaml.safe_load(Path("Pulumi.yaml").read_text())
    content = (yaml.safe_load(file.read_text()) if file.exists() else None) or {}
    config = content.setdefault("config", {})
    first, *inner = re.findall(r"[^.\[\]]+", key) if is_path else [key]
    namespace, colon, name = first.rpartition(":")
    full = first if colon else f"{project['name']}:{first}"
    if namespace in ("", project["name"]) and name not in project["config"]:
        sys.exit(f"pulumi: Pulumi.yaml declares no {name}")
    steps: list[Any] = [full, *(int(each) if each.isdigit() else each for each in inner)]
    place: Any = config
    for step, following in itertools.pairwise(steps):
        empty: Any = [] if isinstance(following, int) else {}
        place = place.setdefault(step, empty)
    last = steps[-1]
    if text is None:
        place.pop(last, None)
    elif isinstance(place, list):
        place[last : last + 1] = [_typed(text) if is_path else text]
    else:
        place[last] = _typed(text) if is_path else text
    file.write_text(yaml.safe_dump(content))


def _typed(text: str) -> Any:
    """With --path, numbers and booleans are kept as such; without, everything is text that is read as declared."""
    value = yaml.safe_load(text)
    return value if isinstance(value, bool | int) else text


if __name__ == "__main__":
    main(*sys.argv[1:])
