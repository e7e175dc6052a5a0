"""The client as a package of npm: what it holds, and what its types say.

Not proven here: that a registry takes it, or that the types describe what comes over the wire.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.npm_packages import REACT, TYPESCRIPT, bundled, command, installed

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "web" / "client"
STRICT = {
    "strict": True,
    "noEmit": True,
    "exactOptionalPropertyTypes": True,
    "noUncheckedIndexedAccess": True,
    "target": "es2022",
    "lib": ["es2023", "dom", "dom.iterable", "dom.asynciterable"],
    "types": [],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has installed the package as npm packs it."""
    folder = tmp_path_factory.mktemp("project")
    # The types of React, as its users have them.
    shutil.copytree(installed(*REACT), folder / "node_modules")
    pack = [command("npm"), "pack", "--json", "--pack-destination", str(folder)]
    packed = json.loads(subprocess.run(pack, cwd=CLIENT, capture_output=True, text=True, check=True).stdout)
    # npm 11 answers with a list, later ones with an object by package name.
    (description,) = packed if isinstance(packed, list) else packed.values()
    with tarfile.open(folder / description["filename"]) as archive:
        archive.extractall(folder, filter="data")
    (folder / "package").rename(folder / "node_modules" / "docprogress")
    return folder


def compile_strictly(folder: Path, *files: Path, **options: Any) -> str:
    """What `tsc` says about these files; nothing where all is well."""
    settings = {"compilerOptions": {**STRICT, **options}, "files": [str(file) for file in files]}
    (folder / "tsconfig.json").write_text(json.dumps(settings))
    tsc = installed(TYPESCRIPT) / "typescript" / "bin" / "tsc"
    run = subprocess.run(
        [command("node"), str(tsc), "-p", str(folder)], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0 or run.stdout, run.stderr
    return run.stdout


def test_the_package_holds_its_modules_and_types_and_nothing_else(project: Path) -> None:
    package = project / "node_modules" / "docprogress"
    held = {file.relative_to(package).as_posix() for file in package.rglob("*")}
    assert held == {
        "package.json",
        "README.md",
        *(file.name for file in CLIENT.glob("*.js")),
        *(file.name for file in CLIENT.glob("*.d.ts")),
    }
    manifest = json.loads((package / "package.json").read_text())
    assert "private" not in manifest, "npm publish would refuse it"
    assert not {"dependencies", "scripts"} & set(manifest)
    assert all(manifest["peerDependenciesMeta"][peer]["optional"] for peer in manifest["peerDependencies"])
    for entry in manifest["exports"].values():
        assert all((package / file).is_file() for file in entry.values())


def test_the_readme_says_what_the_client_weighs_and_that_is_under_6_kb() -> None:
    stated = re.search(r"(\d,\d{3}) bytes, minified and gzipped", (CLIENT / "README.md").read_text())
    assert stated, "the README of the client states its size"
    weight = len(gzip.compress(bundled(CLIENT / "index.js", options=["--minify"]).encode(), mtime=0))
    assert weight < 6000
    # Compressors differ by some bytes from one version to the next.
    assert weight == pytest.approx(int(stated[1].replace(",", "")), abs=20)


def test_the_client_is_imported_where_there_is_no_browser() -> None:
    script = f"""
        import {{ ProgressClient, countsOf }} from {json.dumps((CLIENT / "index.js").as_uri())};
        process.exitCode = typeof window === "undefined" && typeof ProgressClient === "function" ? 0 : 1;
    """
    node = [command("node"), "--input-type=module", "--eval", script]
    run = subprocess.run(node, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(("module", "resolution"), [("nodenext", "nodenext"), ("esnext", "bundler")])
def test_an_example_in_strict_typescript_compiles(project: Path, module: str, resolution: str) -> None:
    (project / "package.json").write_text('{"type": "module"}')
    example = project / "example.ts"
    example.write_text((ROOT / "tests/web/client/example.ts").read_text())
    component = project / "component.tsx"
    component.write_text((ROOT / "tests/web/client/component.tsx").read_text())
    files = (example, component)
    assert compile_strictly(project, *files, module=module, moduleResolution=resolution, jsx="react-jsx") == ""
    example.write_text('import { follow } from "docprogress";\nfollow();\n')
    assert "has no exported member" in compile_strictly(project, example, module=module, moduleResolution=resolution)


def test_the_types_written_by_hand_are_those_of_the_modules(project: Path) -> None:
    modules = project / "modules"
    modules.mkdir()
    for file in CLIENT.glob("*.js"):
        (modules / file.name).write_text(file.read_text())
    # The modules' comments mean the package's types, which do not lie beside them here.
    for file in modules.iterdir():
        file.write_text(file.read_text().replace('import("./index.js")', 'import("docprogress")'))
        file.write_text(file.read_text().replace('import("./react.js")', 'import("docprogress/react")'))
    # React's module is compared with the types that it shares with the package: a class is no other class.
    react = modules / "react.js"
    react.write_text(react.read_text().replace('from "./index.js"', 'from "docprogress"'))
    agreement = project / "agreement.ts"
    agreement.write_text((ROOT / "tests/web/client/agreement.ts").read_text())
    javascript = {"module": "esnext", "moduleResolution": "bundler", "allowJs": True, "checkJs": True}
    assert compile_strictly(project, agreement, **javascript) == ""
    client = modules / "client.js"
    client.write_text(client.read_text().replace("  close() {", "  end() {"))
    assert "Property 'close' is missing" in compile_strictly(project, agreement, **javascript)


def test_the_page_uses_the_client_as_its_types_say(tmp_path: Path) -> None:
    page = [ROOT / "web" / "app.js", ROOT / "web" / "client" / "client.js"]
    javascript = {"module": "esnext", "moduleResolution": "bundler", "allowJs": True, "checkJs": True}
    assert compile_strictly(tmp_path, *page, **javascript) == ""
