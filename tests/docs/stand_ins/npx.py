"""`npx wscat …` with the wscat of tests/npm_packages.py; it ends with the document, not after the seconds of its -w."""

from __future__ import annotations

import os
import subprocess
import sys

command, *arguments = sys.argv[1:]
if command != "wscat":
    sys.exit(f"npx: {command} is not known to the stand-in")
with subprocess.Popen(["node", os.environ["DOCS_WSCAT"], *arguments], stdout=subprocess.PIPE, text=True) as wscat:
    assert wscat.stdout is not None
    for line in wscat.stdout:
        print(line, end="", flush=True)
        if '"processing_complete"' in line:
            break
    wscat.terminate()
