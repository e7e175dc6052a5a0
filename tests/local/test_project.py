"""Not proven here: that the Pulumi CLI reads the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local.project import ProjectError, read_project
from tests.mock_engine import PROJECT_ROOT, run_main

PROJECT = """
name: shop
runtime: python
config:
  color: {type: string, default: red}
  shop:rate: {type: integer, default: 5}
  open: {type: boolean, default: false}
  tags: {type: array, items: {type: string}, default: [a, b]}
  token: {type: string, default: t, secret: true}
  aws:region: {value: us-east-1}
  plain: short form
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Pulumi.yaml").write_text(PROJECT)
    return tmp_path


def test_defaults_stand_where_nothing_else_is_said(folder: Path) -> None:
    project = read_project(folder, "local", {})
    assert project.name == "shop"
    assert project.program == folder
    assert project.secret_keys == ["shop:token"]
    assert project.config == {
        "shop:color": "red",
        "shop:rate": "5",
        "shop:open": "false",
        "shop:tags": '["a", "b"]',
        "shop:token": "t",
        "aws:region": "us-east-1",
        "shop:plain": "short form",
    }


def test_an_override_beats_the_stack_which_beats_the_project(folder: Path) -> None:
    (folder / "Pulumi.local.yaml").write_text("config:\n  shop:color: blue\n  shop:rate: 6\n  shop:open: true\n")
    config = read_project(folder, "local", {"rate": "7", "shop:extra": "x"}).config
    assert config["shop:color"] == "blue"
    assert config["shop:open"] == "true"
    assert config["shop:rate"] == "7"
    assert config["shop:extra"] == "x"
    assert read_project(folder, "dev", {}).config["shop:color"] == "red", "another stack's file is not read"


def test_a_string_that_looks_like_a_number_stays_a_string(folder: Path) -> None:
    assert read_project(folder, "local", {"color": "007"}).config["shop:color"] == "007"


def test_what_pulumi_config_set_has_written_as_text_is_taken_as_declared(folder: Path) -> None:
    (folder / "Pulumi.local.yaml").write_text("config: {shop:rate: '9', shop:open: 'true'}")
    assert {"shop:rate": "9", "shop:open": "true"}.items() <= read_project(folder, "local", {}).config.items()


@pytest.mark.parametrize("text", ["nine", "1.5", "", "True"])
def test_a_text_that_the_engine_does_not_read_either_is_refused(folder: Path, text: str) -> None:
    for key in ("rate", "open"):
        (folder / "Pulumi.local.yaml").write_text(f"config: {{shop:{key}: '{text}'}}")
        with pytest.raises(ProjectError, match="must be of type"):
            read_project(folder, "local", {})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"rate": "many"}, "'shop:rate' of stack 'local' must be of type integer, not 'many'"),
        ({"rate": "1.5"}, "'shop:rate' of stack 'local' must be of type integer, not 1.5"),
        ({"rate": "true"}, "'shop:rate' of stack 'local' must be of type integer, not True"),
        ({"open": "yes"}, "'shop:open' of stack 'local' must be of type boolean, not 'yes'"),
        ({"tags": "a"}, "'shop:tags' of stack 'local' must be of type array, not 'a'"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_cures_it(
    folder: Path, overrides: dict[str, str], message: str
) -> None:
    defaults = {"rate": "5", "open": "false", "tags": """'["a", "b"]'"""}
    (key,) = overrides
    with pytest.raises(ProjectError) as raised:
        read_project(folder, "local", overrides)
    cure = f"  pulumi config set shop:{key} {defaults[key]} --stack local"
    assert str(raised.value) == f"config key {message}\n{cure}"


@pytest.mark.parametrize(
    ("project", "stack", "message"),
    [
        ("runtime: python", "", "has no name"),
        ("- a list", "", "is not a YAML mapping"),
        ("name: [", "", "cannot be read"),
        ("name: a\nconfig: {k: {type: string}}", "", "stack 'local' is missing a value for the config key 'a:k'"),
        ("name: a\nconfig: {k: {type: text, default: x}}", "", "'a:k' is declared as 'text'; allowed: string"),
        ("name: a", "config: {a:k: {secure: AAAB}}", "'a:k' is encrypted"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_message(
    tmp_path: Path, project: str, stack: str, message: str
) -> None:
    (tmp_path / "Pulumi.yaml").write_text(project)
    if stack:
        (tmp_path / "Pulumi.local.yaml").write_text(stack)
    with pytest.raises(ProjectError, match=message):
        read_project(tmp_path, "local", {})


def test_a_folder_without_a_project_is_told(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"Pulumi\.yaml does not exist"):
        read_project(tmp_path, "local", {})


def test_what_the_local_stack_declares_is_asked_for_on_the_emulator() -> None:
    """A service without an endpoint in Pulumi.local.yaml would be asked for on AWS by the Pulumi CLI."""
    several = {"cloudwatch": {"cloudwatch", "events", "logs"}, "cognito": {"cognitoidp"}}
    everything = {
        "authorization": "AWS_IAM",
        "fanOut": "stream",
        "documentUploads": "true",
        "documentResults": "true",
        "alarmEmail": "a@example.com",
    }
    used: set[str] = set()
    for overrides in ({}, everything):
        for resource in run_main("local", overrides):
            if resource.type.startswith("aws:"):
                module = resource.type.removeprefix("aws:").partition("/")[0]
                used |= several.get(module, {module})
    (endpoints,) = json.loads(read_project(PROJECT_ROOT, "local", {}).config["aws:endpoints"])
    assert used <= endpoints.keys()
    assert set(endpoints.values()) == {"http://localhost:4566"}
