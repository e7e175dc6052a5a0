"""Builds the archive of a function: its handler, this project's packages that it imports, and pinned wheels for Lambda.

An archive is named after its content, so the same input is built once and gives the same file.
"""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from pathlib import Path

import uv


class Packaging(StrEnum):
    """What the functions' archives are built for."""

    LAMBDA = "lambda"
    """Lambda's own Python and processor."""
    HOST = "host"
    """This machine's Python, which has the wheels: for the local stack."""


# The functions' runtime and the wheels in their archives must agree, so both are said here.
LAMBDA_PYTHON = "3.13"
LAMBDA_ARCHITECTURE = "arm64"
# Amazon Linux 2023, which Lambda's Python 3.12 and later run on, has glibc 2.34.
_LAMBDA_PLATFORM = "aarch64-manylinux_2_28"

_HERE = Path(__file__).resolve().parent
# Installed as a package, it brings the sources along.
PROJECT = _HERE / "sources" if (_HERE / "sources").is_dir() else _HERE.parent
_FUNCTIONS = PROJECT / "functions"
# Where the packages that a handler imports are looked for.
_SOURCES = (_FUNCTIONS, PROJECT / "library")
_BUILD = PROJECT / ".build"

# What installers leave beside a package: they differ from run to run, and nothing at run time reads them.
_STRAY_FILES = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"}
_STRAY_FOLDERS = {"__pycache__", "bin"}
_STRAY_SUFFIXES = {".pyc", ".pyi", ".orig", ".rej", ".bak", ".swp"}

# ZIP's own epoch: an archive must not tell when it was built.
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)


class PackagingError(Exception):
    """An archive could not be built."""


def lambda_package(handler_module: str, *, target: Packaging = Packaging.LAMBDA) -> Path:
    """Build a handler with all it imports, and return the archive's path.

    It holds the packages and modules beside the handler, in `functions/` and in `library/` that the handler imports,
    directly or not; its wheels, each pinned by hash, are those of the `{handler}.requirements.txt` beside it or, where
    there is none, of `functions/requirements.txt`.

    Args:
        handler_module: see `handler_path`.
        target: lambda for Lambda's own Python and processor; host for this machine, without the wheels: the Python that
            runs the program has the same ones installed, compiled, and each sandbox would unpack and compile them anew.

    Raises:
        PackagingError: there is no such handler, or its wheels could not be had.
    """
    handler = handler_path(handler_module)
    entries = dict(_files_below(_wheels(handler))) if target == Packaging.LAMBDA else {}
    for path in sources_of(handler):
        if path.is_dir():
            entries |= {f"{path.name}/{name}": file for name, file in _files_below(path)}
        else:
            entries[path.name] = path
    return _archive(handler.stem, entries)


def handler_path(handler_module: str) -> Path:
    """The file of a handler: `functions/{handler_module}.py`, or the one whose path ends in `.py`.

    Raises:
        PackagingError: there is no such file.
    """
    is_path = handler_module.endswith(".py")
    handler = Path(handler_module).resolve() if is_path else _FUNCTIONS / f"{handler_module}.py"
    if not handler.is_file():
        raise PackagingError(f"There is no {handler if is_path else f'functions/{handler.name}'}.")
    return handler


def sources_of(handler: Path) -> set[Path]:
    """The handler, and the packages and modules it needs; a change to any other does not redeploy it."""
    found = {handler}
    unread = [handler]
    while unread:
        module = unread.pop()
        for name in _imported_names(module, module.stat().st_mtime_ns):
            for folder in (handler.parent, *_SOURCES):
                package, beside = folder / name, folder / f"{name}.py"
                if package.is_dir() and package not in found:
                    found.add(package)
                    unread += package.rglob("*.py")
                elif beside.is_file() and beside not in found:
                    found.add(beside)
                    unread.append(beside)
    return found


@cache
def _imported_names(module: Path, _changed_at: int) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_bytes(), module.name)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return frozenset(names)


def _files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if (
            path.is_file()
            and path.name not in _STRAY_FILES
            and path.suffix not in _STRAY_SUFFIXES
            and _STRAY_FOLDERS.isdisjoint(name.parts)
            # Editors and tools leave these beside the code.
            and not any(part.startswith(".") for part in name.parts)
            and not path.name.endswith(("~", "#"))
        ):
            yield name.as_posix(), path


def _wheels(handler: Path) -> Path:
    """A folder with the handler's requirements installed for Lambda, kept for the next build."""
    requirements = handler.with_name(f"{handler.stem}.requirements.txt")
    if not requirements.is_file():
        requirements = _FUNCTIONS / "requirements.txt"
    key = hashlib.sha256(requirements.read_bytes() + f"{_LAMBDA_PLATFORM} {LAMBDA_PYTHON}".encode()).hexdigest()[:16]
    folder = _BUILD / "wheels" / key
    if folder.is_dir():
        return folder

    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        command = [
            uv.find_uv_bin(),
            *("pip", "install", "--quiet", "--require-hashes", "--only-binary", ":all:"),
            *("--python-platform", _LAMBDA_PLATFORM, "--python-version", LAMBDA_PYTHON),
            *("--target", str(fresh), "--requirement", str(requirements)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise PackagingError(
                f"The wheels of {requirements.name} could not be installed for Python {LAMBDA_PYTHON} on"
                f" {_LAMBDA_PLATFORM}.\n"
                f"{done.stderr.strip()}"
            )
        try:
            fresh.rename(folder)
        except OSError:
            # Another build was faster; its folder holds the same.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _archive(name: str, entries: dict[str, Path]) -> Path:
    contents = {entry: entries[entry].read_bytes() for entry in sorted(entries)}
    digest = hashlib.sha256()
    for entry, content in contents.items():
        digest.update(f"{entry}\0{len(content)}\0".encode() + content)
    archive = _BUILD / "archives" / f"{name}-{digest.hexdigest()[:16]}.zip"
    if archive.is_file():
        return archive

    archive.parent.mkdir(parents=True, exist_ok=True)
    handle, fresh = tempfile.mkstemp(dir=archive.parent)
    with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zip_file:
        for entry, content in contents.items():
            info = zipfile.ZipInfo(entry, _TIMESTAMP)
            info.compress_type = zipfile.ZIP_DEFLATED
            # Lambda runs the code as another user, who must be able to read it.
            info.external_attr = 0o644 << 16
            zip_file.writestr(info, content)
    Path(fresh).replace(archive)
    return archive
