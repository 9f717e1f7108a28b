"""manage.py launch_run: says what a run will take, and launches what the page would launch."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from jobs.models import Job
from tests.training.runs import CONFIG, make_corpus, make_home
from training.models import TrainingRun
from training.services import runs as services
from training.services.runs import Leak

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def config(home, settings, tmp_path) -> Path:
    settings.MODEL_DIRS, settings.RUN_DIR = [home], tmp_path / "runs"
    make_corpus(home)
    path = tmp_path / "run.toml"
    path.write_text(CONFIG.to_toml(), encoding="utf-8")
    return path


def launch_run(*arguments: str | Path) -> str:
    out = io.StringIO()
    call_command("launch_run", *map(str, arguments), stdout=out)
    return out.getvalue()


def test_an_estimate_launches_nothing_and_a_launch_is_that_of_the_page(config, admin):
    said = launch_run("first", "--corpus", "talks", "--config", config, "--estimate")
    assert "samples; " in said and "GiB of memory a device" in said and "Launched" not in said
    assert not TrainingRun.objects.exists()
    said = launch_run("first", "--corpus", "talks", "--config", config, "--by", admin.username)
    run = TrainingRun.objects.get()
    assert f"/training/{run.public_id}/" in said
    assert (run.config, run.created_by, run.job.state) == (CONFIG.to_json(), admin, Job.State.QUEUED)


def test_leaks_are_named_and_must_be_accepted(config, monkeypatch):
    monkeypatch.setattr(services, "leaked_items", lambda folder: [Leak("a dataset", f"item {n}") for n in range(6)])
    with pytest.raises(CommandError, match="learns from items of datasets here"):
        launch_run("first", "--corpus", "talks", "--config", config)
    assert not TrainingRun.objects.exists()
    said = launch_run("first", "--corpus", "talks", "--config", config, "--accept-leaks")
    assert "6 items of datasets here: a dataset/item 0" in said and said.count("/item") == 5
    assert len(TrainingRun.objects.get().leaks) == 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--corpus", "nobody's"), "no prepared corpus nobody's"),
        (("--corpus", "talks", "--config", "nowhere.toml"), "nowhere.toml cannot be read"),
        (("--corpus", "talks", "--memory-gib", "0.1"), "needs about"),
        (("--corpus", "talks", "--device", "cuda"), "how much memory one GPU has"),
        (("--corpus", "talks", "--by", "ghost"), "ghost"),
    ],
)
def test_what_cannot_work_is_refused_in_a_sentence(config, arguments, words):
    with pytest.raises(CommandError, match=words):
        launch_run("first", *arguments)
    assert not TrainingRun.objects.exists()


def test_a_setting_that_does_not_exist_is_named(config):
    config.write_text("stepps = 3\n", encoding="utf-8")
    with pytest.raises(CommandError, match="stepps"):
        launch_run("first", "--corpus", "talks", "--config", config)
