"""Which way the arrows point. STYLE in one place: an import goes to the right or stays at home."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
# config ► training ► models_runtime ► annotation ► jobs, metrics
REACH = {
    "config": {"config", "training", "models_runtime", "annotation", "jobs", "metrics"},
    "training": {"training", "models_runtime", "annotation", "jobs", "metrics"},
    "models_runtime": {"models_runtime", "annotation", "jobs", "metrics"},
    "annotation": {"annotation", "jobs", "metrics"},
    "jobs": {"jobs"},
    "metrics": {"metrics"},
}
PURE = (
    "metrics/",
    "annotation/design/",
    "annotation/formats/",
    "annotation/figures/",
    "models_runtime/engine/",
    "models_runtime/endpoints/",
    "training/finetune/",
    "training/corpus/",
)
# Within a skin: urls ► views, api ► tasks, reports ► services, selectors ► models.
LAYERS = {"urls": 0, "views": 1, "api": 1, "tasks": 2, "reports": 2, "services": 3, "selectors": 3, "models": 4}
# A task's handler is named where it is started; both lie on the way from a view to its work.
WEB_FORBIDDEN = ("torch", "transformers", "peft")


def modules() -> Iterator[Path]:
    for package in REACH:
        if (ROOT / package).exists():
            yield from (p for p in sorted((ROOT / package).rglob("*.py")) if "migrations" not in p.parts)


def imported(path: Path) -> Iterator[str]:
    """Names of all modules that a file imports, wherever in the file."""
    package = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (".".join((*package[: -node.level], alias.name)) for alias in node.names)


def layer(module: str) -> int | None:
    parts = module.split(".")
    if len(parts) < 2 or parts[0] not in REACH or parts[1] == "models_runtime":
        return None
    return next((LAYERS[name] for name in LAYERS if parts[1] == name or parts[1].startswith(f"{name}_")), None)


def own_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", list(modules()), ids=own_name)
def test_an_import_goes_to_the_right_or_stays_at_home(path):
    home = path.relative_to(ROOT).parts[0]
    for name in imported(path):
        top = name.split(".")[0]
        assert top not in REACH or top in REACH[home], f"{own_name(path)} imports {name}"


@pytest.mark.parametrize("path", list(modules()), ids=own_name)
def test_within_a_skin_imports_go_down(path):
    own = layer(own_name(path))
    if own is None:
        return
    for name in imported(path):
        if name.split(".")[0] == path.relative_to(ROOT).parts[0] and (other := layer(name)) is not None:
            assert own <= other, f"{own_name(path)} imports {name}, which lies above it"


@pytest.mark.parametrize("path", [p for p in modules() if str(p.relative_to(ROOT)).startswith(PURE)], ids=own_name)
def test_pure_cores_know_no_django(path):
    known = [n for n in imported(path) if n.split(".")[0] in ("django", "rest_framework", "celery", "jobs")]
    assert not known


def test_a_service_never_imports_a_task():
    for path in modules():
        if "services" in path.parts:
            assert not [n for n in imported(path) if ".tasks" in n], own_name(path)


def test_no_file_imports_one_that_imports_it_back():
    names = {own_name(path).removesuffix(".__init__"): path for path in modules()}
    edges = {
        name: {n for n in imported(path) if n in names and n != name and not n.startswith(f"{name}.")}
        for name, path in names.items()
    }
    for name, targets in edges.items():
        for target in targets:
            assert name not in edges[target], f"{name} and {target} import each other"


def test_the_web_process_never_loads_torch():
    """In a process of its own: the site's urls, the API and the admin are loaded, and torch is not."""
    script = (
        "import django, sys; django.setup()\n"
        "from django.urls import get_resolver; get_resolver().url_patterns\n"
        "import config.wsgi, config.celery\n"
        f"print([name for name in {WEB_FORBIDDEN!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


def test_that_test_would_notice(tmp_path):
    """torch can be imported here, so its absence above means something."""
    script = "import importlib.util; print(importlib.util.find_spec('torch') is not None)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "True"
