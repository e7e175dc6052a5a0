"""`make docs`: docs/asyncapi.yaml as one page of HTML that needs no network, in .build/docs/protocol.html.

The page is drawn by AsyncAPI's own component, which npm fetches once.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "docs" / "asyncapi.yaml"
PAGE = ROOT / ".build" / "docs" / "protocol.html"
CACHE = ROOT / ".build" / "npm"
# A name and a version are what a registry says they are; the sum is not.
COMPONENT = "@asyncapi/react-component@3.2.1"
SHA256 = "c7b5fa24dd8395383fcde3fe53d1bc9a66f02e39c86999845e486084504d512c"
_SCRIPT, _STYLE = "package/browser/standalone/index.js", "package/styles/default.min.css"


class NotHad(Exception):
    """The component could not be fetched. The message is meant for people."""


def component() -> tuple[str, str]:
    """Its script and its style. Raises NotHad."""
    kept = CACHE / f"{SHA256[:16]}.tgz"
    if not kept.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            try:
                command = ["npm", "pack", "--silent", "--pack-destination", folder, COMPONENT]
                subprocess.run(command, check=True, capture_output=True, text=True)
            except FileNotFoundError:
                raise NotHad("make docs needs npm, which comes with Node.js") from None
            except subprocess.CalledProcessError as error:
                raise NotHad(f"npm could not fetch {COMPONENT}: {error.stderr.strip()[-300:]}") from None
            (packed,) = Path(folder).iterdir()
            if (found := hashlib.sha256(packed.read_bytes()).hexdigest()) != SHA256:
                raise NotHad(f"{COMPONENT} has the SHA-256 {found}, and not the {SHA256} that was looked at")
            packed.replace(kept)
    with tarfile.open(kept) as archive:
        return _text(archive, _SCRIPT), _text(archive, _STYLE)


def _text(archive: tarfile.TarFile, name: str) -> str:
    file = archive.extractfile(name)
    assert file is not None, f"{name} is no file"
    return file.read().decode()


def page(source: str, script: str, style: str) -> str:
    # Else the end of an element in them would be the end of theirs.
    script = script.replace("</script", "<\\/script")
    schema = json.dumps(source).replace("</", "<\\/")
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>docprogress: the protocol</title>
<style>{style}</style>
<div id="page"></div>
<script>{script}</script>
<script>AsyncApiStandalone.render({{ schema: {schema} }}, document.getElementById("page"));</script>
</html>
"""


def main() -> int:
    try:
        text = page(SOURCE.read_text(encoding="utf-8"), *component())
    except NotHad as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    print(PAGE.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
