"""Writes down which rights the emulator is asked to check, in its own process.

It checks those of its root user too, who may do everything: so what a deployment calls is what its role will need.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ministack.core import iam_evaluator


def record_actions(file: Path) -> None:
    """Appends `{"action", "resource"}` as a line of JSON for each check, of the root user's requests alone."""
    root = os.environ["AWS_ACCESS_KEY_ID"]
    original: Callable[..., Any] = iam_evaluator.enforce
    # Line by line: the emulator is ended without a word.
    record = file.open("a", buffering=1)

    def enforce(access_key_id: str, action: str, *rest: Any, **named: Any) -> Any:
        if access_key_id == root:
            record.write(json.dumps({"action": action, "resource": named.get("resource_arn", "*")}) + "\n")
        return original(access_key_id, action, *rest, **named)

    iam_evaluator.enforce = enforce
