"""What is not needed goes, with its files, whenever a worker dies; what something rests on stays, and says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.urls import reverse

from annotation.models import AuditEvent
from annotation.services.uploads import store_upload, upload_path
from jobs.models import Job
from jobs.tasks import run_job
from models_runtime.models import Runtime
from tests import factories
from tests.training import rows
from training.finetune.config import FinetuneConfig
from training.models import Corpus, ReviewCase, TrainingRun
from training.services import removal
from training.services.corpora import UPLOADS, CorpusRefused
from training.services.removal import remove_checkpoints, remove_corpus, remove_run
from training.services.runs import Foresight, Launch, RunRefused, launch_run

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def folders(settings, tmp_path):
    settings.CORPUS_DIR = tmp_path / "corpora"
    settings.RUN_DIR = tmp_path / "runs"
    settings.MEDIA_ROOT = tmp_path / "uploads"
    settings.JOB_LOG_DIR = tmp_path / "logs"
    settings.JOB_RETRY_SECONDS = 0


@pytest.fixture
def client(as_user, admin):
    return as_user(admin)


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def with_folder(row: Corpus | TrainingRun, *names: str, n_bytes: int = 2**29) -> Path:
    """Files that look large and take no room."""
    for name in names:
        path = row.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(n_bytes)
    return row.folder


def make_run(name: str = "r", *, state: str = "cancelled", **fields) -> TrainingRun:
    corpus = fields.pop("corpus", None) or rows.ready_corpus()
    job = Job.objects.create(kind="training.run", state=state)
    return TrainingRun.objects.create(name=name, corpus=corpus, base="toy", config={"steps": 9}, job=job, **fields)


def checkpoint(run: TrainingRun, step: int, *, is_complete: bool = True) -> str:
    name = f"step-{step:08}"
    folder = with_folder(run, f"checkpoints/{name}/__0_0.distcp") / "checkpoints" / name
    if is_complete:
        (folder / "complete.json").write_text(json.dumps({"step": step, "state": {}, "files": {}}))
    return name


def done(job: Job) -> Job:
    run_job(job.pk)
    job.refresh_from_db()
    return job


# --- A corpus -------------------------------------------------------------------------------------------


def test_a_corpus_goes_by_one_button_after_a_page_that_says_what_goes(client, admin):
    mine, shared = (store_upload(ContentFile(b"x" * 200), folder=UPLOADS) for _ in range(2))
    sources = [{"name": "mine.json", "upload": mine}, {"name": "ours.json", "upload": shared}]
    corpus, other = (rows.ready_corpus(sources=some) for some in (sources, sources[1:]))
    rows.make_case(corpus)
    folder = with_folder(corpus, "train/ids.bin", "corpus.json")
    address = reverse("corpus_remove", args=[corpus.public_id])
    page = client.get(address).content.decode()
    for told in ("What was prepared", "1.0 GB</td>", "mine.json", "1 case of the review", "Remove for good"):
        assert told in page, told
    assert "ours.json" not in page and folder.exists() and Corpus.objects.count() == 2

    answers = [client.post(address) for _ in range(2)]
    assert {answer.url for answer in answers} == {reverse("corpus_list")}
    assert list(Corpus.objects.all()) == [other] and not ReviewCase.objects.exists()
    event = AuditEvent.objects.get(action="corpus.removed")
    assert event.actor == admin and event.detail["content_hash"] == rows.HASH
    job = Job.objects.get(kind=removal.REMOVE)
    assert done(job).state == "done" and not list(folder.parent.iterdir())
    assert not upload_path(mine, folder=UPLOADS).exists() and upload_path(shared, folder=UPLOADS).exists()


def test_a_corpus_that_something_rests_on_stays_and_says_what(client):
    corpus = rows.ready_corpus("talks")
    folder = with_folder(corpus, "corpus.json")
    make_run("first run", corpus=corpus)
    rows.ready_corpus("reviewed talks", reviewed=corpus)
    rows.ready_corpus("by hand", path=str(folder))
    Job.objects.create(kind="training.leaks", params={"corpus_id": corpus.pk})
    corpus.job = Job.objects.create(kind="training.prepare")
    corpus.save()
    address = reverse("corpus_remove", args=[corpus.public_id])
    told = ("first run", "reviewed talks", "by hand", "compared with the datasets", "still being prepared")
    page = client.get(address).content.decode()
    assert "Remove for good" not in page and all(one in page for one in told)
    page = client.post(address, follow=True).content.decode()
    assert all(page.count(one) == 2 for one in told)  # as an error, and on the page
    assert Corpus.objects.filter(pk=corpus.pk).exists() and files(folder) == ["corpus.json"]
    assert not Job.objects.filter(kind=removal.REMOVE).exists()


def test_a_folder_that_was_made_elsewhere_stays(client, tmp_path):
    corpus = rows.ready_corpus(path=str(tmp_path / "elsewhere"))
    folder = with_folder(corpus, "corpus.json")
    assert (
        "was made elsewhere and stays" in client.get(reverse("corpus_remove", args=[corpus.public_id])).content.decode()
    )
    assert done(remove_corpus(corpus=corpus, by=None)).state == "done"
    assert not Corpus.objects.exists() and files(folder) == ["corpus.json"]


# --- In the middle --------------------------------------------------------------------------------------


def test_before_the_commit_all_is_there_and_after_it_the_files_go_at_the_next_attempt(client, monkeypatch):
    corpus = rows.ready_corpus()
    folder = with_folder(corpus, "corpus.json", "test/ids.bin", "train/ids.bin")

    def fails(*args, **kwargs):
        raise RuntimeError("the power went")

    with monkeypatch.context() as patched:
        patched.setattr(removal, "record", fails)
        with pytest.raises(RuntimeError, match="the power went"):
            client.post(reverse("corpus_remove", args=[corpus.public_id]))
    assert Corpus.objects.filter(pk=corpus.pk).exists() and len(files(folder)) == 3 and not Job.objects.exists()

    job = remove_corpus(corpus=corpus, by=None)
    unlink, gone = Path.unlink, []

    def unlink_once(path, missing_ok=False):
        if gone:
            raise OSError(5, "Input/output error")
        gone.append(path)
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", unlink_once)
        assert done(job).state == "queued" and "Input/output error" in job.error
    assert len(gone) == 1 and not folder.exists() and len(files(folder.parent)) == 2  # aside, where nobody reads
    assert done(job).state == "done" and not list(folder.parent.iterdir())


def test_a_corpus_that_goes_while_a_run_is_confirmed_is_missed_in_words():
    corpus = rows.ready_corpus()
    seen = Foresight(Path("toy"), corpus.content_hash, 1, 0, None, 0, [])
    wanted = Launch(name="r", corpus=Corpus.objects.get(pk=corpus.pk), config=FinetuneConfig())
    remove_corpus(corpus=corpus, by=None)
    with pytest.raises(RunRefused, match="removed meanwhile"):
        launch_run(wanted, seen, by=None)


def test_what_was_launched_again_meanwhile_keeps_its_files():
    corpus = rows.ready_corpus()
    folder = with_folder(corpus, "corpus.json")
    job = remove_corpus(corpus=corpus, by=None)
    rows.ready_corpus(public_id=corpus.public_id)  # the page that launched it was sent once more
    assert done(job).state == "failed" and files(folder) == ["corpus.json"]


# --- A run ----------------------------------------------------------------------------------------------


def test_a_run_without_a_system_goes_with_its_folder(client):
    run = make_run()
    checkpoint(run, 4)
    with_folder(run, "steps.csv", n_bytes=100)
    address = reverse("run_remove", args=[run.public_id])
    page = client.get(address).content.decode()
    assert ">checkpoints</th>" in page and "steps.csv" in page and "512.0 MB</td>" in page
    for _ in range(2):
        assert client.post(address).url == reverse("run_list")
    assert not TrainingRun.objects.exists() and AuditEvent.objects.filter(action="run.removed").count() == 1
    assert done(Job.objects.get(kind=removal.REMOVE)).state == "done" and not list(run.folder.parent.iterdir())
    run.corpus.refresh_from_db()  # stays


def test_a_run_whose_weights_are_needed_stays_and_says_by_whom(client):
    system = factories.make_system("tuned", name="Tuned")
    run = make_run(system=system, state="queued")
    weights = f"{run.public_id}/export"
    Runtime.objects.create(system=system, kind="local", settings={"weights": weights})
    for name, given in (("Second", {"weights": weights}), ("Third", {"weights": "a", "adapter": weights})):
        Runtime.objects.create(system=factories.make_system(name=name), kind="local", settings=given)
    TrainingRun.objects.create(name="next run", corpus=run.corpus, base=f"/runs/{weights}", config={})
    rows.ready_corpus("for it", weights=weights)
    told = ("answers with its weights", "Second, Third", "next run", "for it", "Stop it first")
    page = client.get(reverse("run_remove", args=[run.public_id])).content.decode()
    assert all(one in page for one in told) and page.count("Tuned") == 1 and "Remove for good" not in page
    with pytest.raises(RunRefused, match="Second, Third"):
        remove_run(run=run, by=None)


def test_checkpoints_go_but_for_those_that_the_run_may_go_on_from(client):
    run = make_run()
    old, before, newest = (checkpoint(run, step) for step in (2, 3, 4))
    half = checkpoint(run, 6, is_complete=False)
    detail, address = (reverse(name, args=[run.public_id]) for name in ("run_detail", "run_remove_checkpoints"))
    page = client.get(address).content.decode()
    assert old in page and f"{newest}, {before} will be kept" in page and half not in page
    assert client.post(address).url == detail
    assert done(Job.objects.get(kind=removal.REMOVE)).state == "done"
    assert sorted(path.name for path in (run.folder / "checkpoints").iterdir()) == [before, newest, half]
    assert AuditEvent.objects.get(action="run.checkpoints_removed").detail["kept"] == [newest, before]
    with pytest.raises(RunRefused, match="no checkpoint that is not needed"):
        remove_checkpoints(run=run, by=None)

    # While it trains they are its own; once its weights answer, none is needed.
    Job.objects.filter(pk=run.job_id).update(state="queued")
    with pytest.raises(RunRefused, match="Stop it first"):
        remove_checkpoints(run=run, by=None)
    Job.objects.filter(pk=run.job_id).update(state="done")
    TrainingRun.objects.filter(pk=run.pk).update(system=factories.make_system())
    assert done(remove_checkpoints(run=run, by=None)).result == {"n": 3}
    assert not list((run.folder / "checkpoints").iterdir())


def test_a_corpus_is_free_once_its_run_is_gone():
    run = make_run()
    with pytest.raises(CorpusRefused, match="Runs learn from it: r"):
        remove_corpus(corpus=run.corpus, by=None)
    remove_run(run=run, by=None)
    remove_corpus(corpus=run.corpus, by=None)
    assert not Corpus.objects.exists()
