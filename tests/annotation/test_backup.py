"""A backup that is written can be read, checked and put back; a damaged one says so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from django.db import connection

from tests.architecture.messages import ROOT

pytestmark = pytest.mark.skipif(connection.vendor != "sqlite", reason="runs commands on SQLite files of its own")


def manage(folder, *args: str, database: str = "") -> subprocess.CompletedProcess:
    env = os.environ | {
        "QINGTING_DATA_DIR": str(folder),
        "DATABASE_URL": database or f"sqlite:///{folder / 'qingting.sqlite3'}",
        "DJANGO_SETTINGS_MODULE": "config.settings.dev",
        "QINGTING_DEMO": "1",
    }
    command = [sys.executable, "manage.py", *args]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The data folder of a site with the demonstration in it, and a backup of it."""
    folder = tmp_path_factory.mktemp("full")
    for command in (["migrate", "-v0"], ["load_demo"], ["backup", str(folder / "b.zip")]):
        done = manage(folder, *command)
        assert done.returncode == 0, done.stderr
    return folder


def test_it_comes_back_row_by_row_with_its_log_and_its_rules(full, tmp_path):
    assert "is whole" in manage(tmp_path, "restore", str(full / "b.zip"), "--verify").stdout
    done = manage(tmp_path, "restore", str(full / "b.zip"))
    assert done.returncode == 0, done.stderr
    again = manage(tmp_path, "backup", str(tmp_path / "again.zip"))
    assert again.returncode == 0, again.stderr
    counts = [
        json.loads(zipfile.ZipFile(p).read("manifest.json"))["counts"] for p in (full / "b.zip", tmp_path / "again.zip")
    ]
    assert counts[0] == counts[1] and counts[0]["annotation_rating"] > 500
    check = (
        "from tests.annotation.test_triggers import present; from annotation.triggers import RULES; "
        "print(len(present()) >= len(RULES))"
    )
    assert manage(tmp_path, "shell", "-c", check).stdout.strip().endswith("True")


def test_it_never_writes_over_what_is_there(full):
    assert "exists already" in manage(full, "backup", str(full / "b.zip")).stderr
    assert "holds tables already" in manage(full, "restore", str(full / "b.zip")).stderr


@pytest.mark.parametrize("damage", ["cut", "changed", "other"])
def test_a_damaged_backup_says_so(full, tmp_path, damage):
    bad = tmp_path / "bad.zip"
    if damage == "cut":
        bad.write_bytes((full / "b.zip").read_bytes()[:-5000])
    elif damage == "changed":
        with zipfile.ZipFile(full / "b.zip") as old, zipfile.ZipFile(bad, "w") as new:
            new.writestr("manifest.json", old.read("manifest.json"))
            new.writestr("database.sqlite3", old.read("database.sqlite3").replace(b"demo-rater", b"evil-rater"))
    else:
        bad.write_text("no zip at all")
    done = manage(tmp_path, "restore", str(bad))
    assert done.returncode == 1 and "bad.zip" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.services
@pytest.mark.skipif(not shutil.which("pg_dump"), reason="PostgreSQL's client tools are not installed")
def test_the_same_on_postgresql(tmp_path):
    server = "postgres://postgres@127.0.0.1:5432"
    names = ["qingting_backup_one", "qingting_backup_two"]
    run = ["psql", "-q", "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres", "-c"]
    try:
        for name in names:
            subprocess.run([*run, f"DROP DATABASE IF EXISTS {name}"], check=True)
            subprocess.run([*run, f"CREATE DATABASE {name}"], check=True)
        for command in (["migrate", "-v0"], ["load_demo"], ["backup", str(tmp_path / "b.zip")]):
            done = manage(tmp_path, *command, database=f"{server}/{names[0]}")
            assert done.returncode == 0, done.stderr
        done = manage(tmp_path, "restore", str(tmp_path / "b.zip"), database=f"{server}/{names[1]}")
        assert done.returncode == 0, done.stderr
        assert "audit log whole" in done.stdout
    finally:
        for name in names:
            subprocess.run([*run, f"DROP DATABASE IF EXISTS {name}"], check=False)
