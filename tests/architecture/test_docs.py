"""The documents keep up with the code."""

from __future__ import annotations

import re

import pytest
from django.core.management import get_commands, load_command_class

from tests.architecture.messages import ROOT

ENV = re.findall(r'_env\.\w+\(\s*"([A-Z_]+)"', (ROOT / "config/env.py").read_text(encoding="utf-8"))
OURS = [name for name, app in get_commands().items() if app in ("annotation", "jobs", "models_runtime", "training")]


@pytest.mark.parametrize("name", ENV)
def test_every_variable_of_the_environment_is_documented(name):
    assert f"`{name}`" in (ROOT / "docs/operations.md").read_text(encoding="utf-8")


def test_the_environment_is_read_in_one_place_only():
    readers = [
        path.relative_to(ROOT).as_posix()
        for folder in ("annotation", "jobs", "metrics", "models_runtime", "config")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"os\.environ\[|os\.environ\.get|os\.getenv", path.read_text(encoding="utf-8"))
    ]
    assert readers == ["config/settings/test.py"], (
        "config/env.py reads the environment; only the tests' settings may too"
    )


@pytest.mark.parametrize("name", OURS)
def test_every_command_says_what_it_is_for(name):
    assert load_command_class(get_commands()[name], name).help


def test_links_between_documents_lead_somewhere():
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
