"""The functions' archives: what is in them, that they are the same everywhere, and that they suffice.

Does not prove that the code in them works on Lambda's processor: what is native is only looked at, and replaced by this
machine's own where a handler is imported.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from infra import lambda_package as module
from infra.lambda_package import LAMBDA_ARCHITECTURE, LAMBDA_PYTHON, PackagingError, lambda_package
from tests.mock_engine import PROJECT_ROOT

FUNCTIONS = PROJECT_ROOT / "functions"
# By what a function is given: those in functions/, and those that an example has beside it.
HANDLERS = sorted(
    file.stem if file.parent == FUNCTIONS else str(file)
    for file in (*FUNCTIONS.glob("*.py"), *PROJECT_ROOT.glob("examples/*/*.py"))
    if re.search(r"^(def handler\(|handler = )", file.read_text(), re.MULTILINE)
)

# What Lambda's Python has beside the standard library.
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-python.html
RUNTIME_PACKAGES = ("boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "urllib3")

ELF_MACHINE_AARCH64 = 183
GLIBC_MINOR_OF_AMAZON_LINUX_2023 = 34


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A functions folder of our own, with handlers that need no wheels.

    alpha imports the package lower; beta imports upper, which imports inner.
    """
    folder = tmp_path / "functions"
    files = {
        "alpha.py": "from lower import words\n",
        "beta.py": "def handler(event, context):\n    import upper.words\n",
        "lower/__init__.py": "",
        "lower/words.py": "import json\n",
        "upper/__init__.py": "",
        "upper/words.py": "from . import more\nfrom inner import words\n",
        "upper/more.py": "",
        "inner/__init__.py": "",
        "inner/words.py": "",
        "unused/__init__.py": "",
        "requirements.txt": "",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    monkeypatch.setattr(module, "_FUNCTIONS", folder)
    monkeypatch.setattr(module, "_SOURCES", (folder,))
    monkeypatch.setattr(module, "_BUILD", tmp_path / "build")
    return folder


def names(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as file:
        return file.namelist()


def test_an_archive_holds_the_handler_and_the_packages_it_imports(functions: Path) -> None:
    assert names(lambda_package("alpha")) == ["alpha.py", "lower/__init__.py", "lower/words.py"]
    assert names(lambda_package("beta")) == [
        "beta.py",
        "inner/__init__.py",
        "inner/words.py",
        "upper/__init__.py",
        "upper/more.py",
        "upper/words.py",
    ]


@pytest.mark.parametrize(
    ("changed", "redeployed"),
    [
        ("alpha.py", {"alpha"}),
        ("lower/words.py", {"alpha"}),
        ("upper/more.py", {"beta"}),
        ("inner/words.py", {"beta"}),
        ("unused/__init__.py", set()),
    ],
)
def test_a_changed_file_changes_only_the_archives_that_hold_it(
    changed: str, redeployed: set[str], functions: Path
) -> None:
    before = {handler: lambda_package(handler) for handler in ("alpha", "beta")}
    with (functions / changed).open("a") as file:
        file.write("# changed\n")
    after = {handler: lambda_package(handler) for handler in ("alpha", "beta")}
    assert {handler for handler in before if before[handler].name != after[handler].name} == redeployed


def test_the_time_of_a_file_does_not_count(functions: Path) -> None:
    before = lambda_package("alpha")
    content = before.read_bytes()
    before.unlink()
    for file in functions.rglob("*"):
        os.utime(file, (0, 0))
    after = lambda_package("alpha")
    assert (after, after.read_bytes()) == (before, content)


@pytest.mark.parametrize(
    "stray",
    [
        "lower/__pycache__/words.cpython-313.pyc",
        "lower/words.pyc",
        "lower/.DS_Store",
        "lower/.words.py.swp",
        "lower/words.py~",
        "lower/#words.py#",
        # What a merge or a patch that did not fit leaves.
        "lower/words.py.orig",
        "lower/words.py.rej",
        "lower/words.py.bak",
        "lower/.mypy_cache/words.json",
    ],
)
def test_caches_and_stray_files_stay_outside(stray: str, functions: Path) -> None:
    before = lambda_package("alpha")
    (functions / stray).parent.mkdir(exist_ok=True)
    (functions / stray).write_bytes(b"stray")
    after = lambda_package("alpha")
    assert stray not in names(after)
    assert after == before, "what an editor or an interpreter leaves behind deploys the function anew"


def test_an_archive_is_not_written_twice(functions: Path) -> None:
    first = lambda_package("alpha")
    written = first.stat().st_mtime_ns
    assert lambda_package("alpha").stat().st_mtime_ns == written
    assert [file.name for file in first.parent.iterdir()] == [first.name], "nothing half-written is left"


def test_an_unknown_handler_is_refused_by_name(functions: Path) -> None:
    with pytest.raises(PackagingError, match=r"functions/gamma\.py"):
        lambda_package("gamma")


def test_a_wheel_without_a_hash_is_refused(functions: Path) -> None:
    (functions / "alpha.requirements.txt").write_text("six==1.17.0\n")
    with pytest.raises(PackagingError, match=r"The wheels of alpha\.requirements\.txt could not be installed"):
        lambda_package("alpha")
    assert list((functions.parent / "build" / "wheels").iterdir()) == [], "a failed build leaves nothing behind"


@pytest.fixture(scope="module")
def archives() -> dict[str, Path]:
    """For Lambda, each as its function gets it."""
    return {handler: lambda_package(handler) for handler in HANDLERS}


def test_there_are_handlers_to_look_at() -> None:
    assert {"connection_handler", "document_processor"} <= set(HANDLERS)


def test_a_handler_may_stand_anywhere_with_its_modules_beside_it(functions: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "delta.py").write_text("import beside\nimport alpha\n")
    (own / "beside.py").write_text("")
    expected = ["alpha.py", "beside.py", "delta.py", "lower/__init__.py", "lower/words.py"]
    assert names(lambda_package(str(own / "delta.py"))) == expected
    with pytest.raises(PackagingError, match=r"There is no .*/own/epsilon\.py"):
        lambda_package(str(own / "epsilon.py"))
    (own / "delta.requirements.txt").write_text("six==1.17.0\n")
    with pytest.raises(PackagingError, match=r"The wheels of delta\.requirements\.txt could not be installed"):
        lambda_package(str(own / "delta.py"))


def test_two_machines_build_the_same_archives(
    archives: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BUILD", tmp_path)
    for handler, archive in archives.items():
        again = lambda_package(handler)
        assert again != archive
        assert again.name == archive.name, "the name is the hash of what is in it"
        assert again.read_bytes() == archive.read_bytes()


def test_everything_in_an_archive_can_be_read_by_another_user_and_tells_no_time(archives: dict[str, Path]) -> None:
    for archive in archives.values():
        with zipfile.ZipFile(archive) as file:
            for entry in file.infolist():
                assert entry.external_attr >> 16 & 0o777 == 0o644, entry.filename
                assert entry.date_time == (1980, 1, 1, 0, 0, 0), entry.filename


def test_no_archive_holds_what_nothing_reads(archives: dict[str, Path]) -> None:
    stray = re.compile(
        r"__pycache__|\.py[cio]$|(^|/)(RECORD|INSTALLER|REQUESTED|\.\w[^/]*|[^/]*~)$|(^|/)\.[^/]+/|requirements\.txt$"
    )
    for archive in archives.values():
        assert [name for name in names(archive) if stray.search(name)] == []


def test_every_archive_can_be_uploaded_and_unpacked_by_lambda(archives: dict[str, Path]) -> None:
    # https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
    for handler, archive in archives.items():
        with zipfile.ZipFile(archive) as file:
            unpacked = sum(entry.file_size for entry in file.infolist())
        assert archive.stat().st_size < 50 * 10**6, f"{handler} is too large to upload directly"
        assert unpacked < 250 * 10**6, f"{handler} is too large for Lambda"


def test_what_is_native_is_for_lambda_s_processor_and_python(archives: dict[str, Path]) -> None:
    assert (LAMBDA_ARCHITECTURE, LAMBDA_PYTHON) == ("arm64", "3.13")
    libraries = [library for archive in archives.values() for library in shared_libraries(archive)]
    assert libraries, "encrypted PDFs need native code, so something is amiss"
    for name, content in libraries:
        magic, machine = content[:4], struct.unpack_from("<H", content, 18)[0]
        assert (magic, machine) == (b"\x7fELF", ELF_MACHINE_AARCH64), name
        assert "cpython" not in name or "cpython-313-aarch64" in name, name


def test_every_wheel_fits_lambda_s_platform(archives: dict[str, Path]) -> None:
    for archive in archives.values():
        with zipfile.ZipFile(archive) as file:
            for name in file.namelist():
                if name.endswith(".dist-info/WHEEL"):
                    tags = re.findall(r"^Tag: (\S+)$", file.read(name).decode(), re.MULTILINE)
                    assert any(fits(tag) for tag in tags), f"{name} is for {tags}"


def fits(tag: str) -> bool:
    python, abi, platform = tag.split("-")
    fits_python = python == "py3" or python == "cp313" or (abi == "abi3" and int(python.removeprefix("cp3")) <= 13)
    if platform == "any":
        return fits_python
    glibc = re.fullmatch(r"manylinux_2_(\d+)_aarch64", platform)
    old_enough = platform == "manylinux2014_aarch64" or (
        glibc is not None and int(glibc[1]) <= GLIBC_MINOR_OF_AMAZON_LINUX_2023
    )
    return fits_python and old_enough


def shared_libraries(archive: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            if re.search(r"\.so(\.\d+)*$", name):
                yield name, file.read(name)


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_handler_imports_from_its_archive_alone_and_without_an_environment(
    handler: str, archives: dict[str, Path], tmp_path: Path
) -> None:
    code, runtime = tmp_path / "code", tmp_path / "runtime"
    with zipfile.ZipFile(archives[handler]) as archive:
        archive.extractall(code)
    runtime.mkdir()
    # Native code for Lambda gives way to this machine's, by the name under which it is imported.
    native = {name.split("/")[0].split(".")[0] for name, _ in shared_libraries(archives[handler])}
    for package in (*RUNTIME_PACKAGES, *native):
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        (runtime / source.name).symlink_to(source)
    for package in native:
        shutil.rmtree(code / package, ignore_errors=True)  # a single module has no folder, and fits no other Python
    program = (
        "import importlib, sys\n"
        f"sys.path[:0] = [{str(code)!r}, {str(runtime)!r}]\n"
        f"module = importlib.import_module({Path(handler).stem!r})\n"
        "assert callable(module.handler)\n"
        "print(module.__file__)\n"
    )
    # -I and -S: no environment, no working directory and no site-packages on the path.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        env={},
        cwd=tmp_path,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Before it stands the line about the cold start.
    assert done.stdout.splitlines()[-1] == str(code / f"{Path(handler).stem}.py")


@pytest.mark.parametrize("handler", HANDLERS)
def test_for_this_machine_an_archive_holds_our_own_code_and_the_wheels_are_installed(
    handler: str, archives: dict[str, Path]
) -> None:
    ours = set(names(lambda_package(handler, target="host")))
    assert f"{Path(handler).stem}.py" in ours
    folders = (FUNCTIONS, PROJECT_ROOT / "library", Path(handler).parent)
    assert all(any((folder / name).is_file() for folder in folders) for name in ours)
    wheels = {name.split("/")[0] for name in set(names(archives[handler])) - ours if name.endswith("/__init__.py")}
    assert wheels
    assert [package for package in wheels if find_spec(package) is None] == []


def test_what_a_handler_carries_is_pinned_by_make_lock_wherever_it_stands(tmp_path: Path) -> None:
    shutil.copy(PROJECT_ROOT / "Makefile", tmp_path)
    own = tmp_path / "examples" / "images" / "image_processor.requirements.in"
    own.parent.mkdir(parents=True)
    own.write_text("pillow\n")
    lock = subprocess.run(
        ["make", "-n", "-o", ".venv/.uv", "lock"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    relative = own.relative_to(tmp_path)
    carried = [line for line in lock.splitlines() if str(relative) in line]
    assert ["--group dev" in line for line in carried].count(True) == 1, "it is resolved together with the rest"
    assert any(f"for each in {relative};" in line for line in carried), "and has a file of its own"


@pytest.mark.parametrize("wanted", sorted(FUNCTIONS.glob("*.in")), ids=lambda path: path.name)
def test_what_a_handler_asks_for_is_pinned_beside_it(wanted: Path) -> None:
    pinned = wanted.with_suffix(".txt").read_text()
    for line in wanted.read_text().splitlines():
        if line[:1].isalpha():
            name = re.match(r"[\w-]+", line)
            assert name is not None
            assert re.search(rf"^{name[0]}(\[\w+\])?==", pinned, re.MULTILINE), line
