"""Batches of local systems: a real child process answers, and everything is stored once, whatever happens."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from annotation.models import Response, TextCounts
from annotation.tasks import COUNT_TEXTS
from jobs.errors import ChildFailed
from jobs.models import Job
from jobs.registry import sentence_of
from jobs.tasks import run_job
from models_runtime.endpoints.errors import Kind
from models_runtime.endpoints.reading import clean
from models_runtime.engine.errors import ContextTooLong, EmptyDialogue, EngineError, PromptRefused
from models_runtime.engine.prompts import Turn
from models_runtime.engine.protocol import Work, WorkerJob, write_work
from models_runtime.explanations import explain
from models_runtime.models import RuntimeVersion
from models_runtime.runtimes import LocalSettings
from models_runtime.selectors.batches import batch_page, part_row
from models_runtime.services import local, trying
from models_runtime.services.batches import pause_batch, resume_batch, work_left
from models_runtime.services.recording import Recorder
from models_runtime.tasks import TRY, try_soon
from tests import factories
from tests.models_runtime import tiny
from tests.models_runtime.batches import DECODING, launch, local_system, make_dataset, run
from tests.models_runtime.here import run_worker_in, said_by

# A child that loads torch takes some 4 s; what can be asked of one child is asked of one.
pytestmark = [pytest.mark.django_db, pytest.mark.slow]


@pytest.fixture(autouse=True)
def folders(settings, tmp_path_factory, tmp_path, monkeypatch):
    settings.MODEL_DIRS = [tmp_path_factory.getbasetemp()]
    settings.BATCH_DIR = tmp_path / "batches"
    settings.WEIGHTS_DIGESTS = tmp_path / "digests.json"
    settings.JOB_LOG_DIR = tmp_path / "logs"
    settings.JOB_RETRY_SECONDS = 0
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return tiny.causal(tmp_path_factory.mktemp("causal"))


def test_a_batch_from_launch_to_text_counts(weights, tmp_path):
    """Every item and repeat once, with its provenance; a stored response is kept; what it hands over is gone.

    A response depends on system, key, repeat and seed: neither on the database's numbers nor on its neighbours.
    """
    system, dataset = local_system(weights), make_dataset(4)
    kept = factories.make_response(dataset.items.first(), system, "早就写好的回复。")
    batch = launch(system, dataset=dataset, repeats=2, seed=7)
    (job,) = run(batch)
    assert (job.state, job.error) == ("done", "")
    responses = Response.objects.filter(system=system).exclude(pk=kept.pk)
    assert responses.count() == 7 and Response.objects.get(pk=kept.pk).text == "早就写好的回复。"
    assert job.result["counts"] == {"n_new": 7} and (job.n_done, job.n_total) == (8, 8)
    version = RuntimeVersion.objects.get(system=system)
    assert version.spec["weights_digest"] and version.number == 1
    for response in responses:
        told = response.provenance
        assert told["spec_digest"] == version.digest and told["spec"] == version.spec
        assert told["seed"] == 7 and told["batch"] == str(batch.public_id) and told["runtime_version"] == 1
        assert told["spec"]["decoding"] == DECODING.to_json() and told["spec"]["adapter_digest"] is None
        assert told["tokens_in"] > 0 and told["finish_reason"] in ("stop", "length") and told["seconds"] >= 0
        assert {"torch", "transformers"} <= told["versions"].keys() and told["device"].startswith("cpu")
    assert work_left(batch.parts.get()) == []
    counting = Job.objects.get(kind=COUNT_TEXTS)
    run_job(counting.pk)
    assert TextCounts.objects.count() == 8

    items, newest_first = tmp_path / "items.jsonl", dataset.items.order_by("-pk")
    work = [Work(i.key, r, tuple(Turn(t["role"], t["text"]) for t in i.turns)) for r in (1, 0) for i in newest_first]
    write_work(items, work)
    asked = WorkerJob(weights=weights, items=items, decoding=DECODING, seed=7, batch_rows=3)
    # Noise may hold a NUL, which no database takes as text; it is stored as a mark in its place.
    written = {(m["item"], m["repeat"]): clean(m["text"]) for m in said_by(asked) if m["type"] == "response"}
    stored = {(r.item.key, r.repeat): r.original for r in responses.select_related("item")}
    assert len(set(stored.values())) > 3 and stored.items() <= written.items()


BAD = {"long": "context_too_long", "empty": "empty_dialogue", "no-turn": "empty_dialogue"}


def test_an_item_that_cannot_be_answered_fails_alone_and_a_pause_keeps_what_is_there(weights, monkeypatch, tmp_path):
    """A child for the bad items and the pause; the rest is answered here; a third batch finds nothing to do."""
    decoding = replace(DECODING, max_input_tokens=400, max_new_tokens=32)
    n = 120  # some seconds of work, so that a pause comes in the middle of it on any machine
    system, dataset = local_system(weights, decoding=decoding, batch_rows=1), make_dataset(n)
    factories.make_item(dataset, "long", turns=[{"role": "client", "text": "很长" * 2000}])
    factories.make_item(dataset, "empty", turns=[{"role": "client", "text": " "}])
    factories.make_item(dataset, "no-turn", turns=[])
    batch = launch(system, dataset=dataset)
    again = launch(system, dataset=dataset)  # pressed twice, in two windows
    store = Recorder.response

    def pause_after_the_first(self, *args):
        store(self, *args)
        pause_batch(batch=batch, by=None)

    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "response", pause_after_the_first)
        (job,) = run(batch)
    assert job.state == "cancelled"
    first = dict(Response.objects.filter(system=system).values_list("item_id", "original"))
    assert 1 <= len(first) < n
    assert work_left(batch.parts.get())
    resume_batch(batch=batch, by=None)
    expected, worker = [], run_worker_in(tmp_path)

    def note(running, job, *args, **options):
        expected.append(job.expected_spec)
        worker(running, job, *args, **options)

    monkeypatch.setattr(local, "run_worker", note)
    (job,) = run(batch)
    assert job.state == "done"
    assert expected == [RuntimeVersion.objects.get(system=system).digest]  # other weights would be refused now
    page = batch_page(batch)
    assert page.n_answered + page.n_failed == page.n_total == n + 3
    failed = dict(batch.parts.get().failures.filter(item__key__in=BAD).values_list("item__key", "code"))
    assert failed == BAD
    stored = dict(Response.objects.filter(system=system).values_list("item_id", "original"))
    assert first.items() <= stored.items()
    again.batch_items.exclude(item__in=stored).delete()  # noise of a toy model may be empty, which is a failure
    (job,) = run(again)
    assert (job.state, job.result["counts"]) == ("done", {"n_new": 0})
    assert len(expected) == 1  # no child was started for nothing


class Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


def hostile_pickle(folder: Path) -> Path:
    tiny.chatglm(folder, form="bin")
    torch.save({"transformer.word_embeddings.weight": Evil(str(folder / "ran"))}, folder / "pytorch_model.bin")
    return folder


def test_weights_that_are_no_good_are_said_on_the_page_and_nothing_is_lost(tmp_path):
    folder = hostile_pickle(tmp_path / "weights")
    system, dataset = local_system(folder), make_dataset(2)
    batch = launch(system, dataset=dataset)
    (job,) = run(batch)
    assert (job.state, job.error_class, job.attempt) == ("failed", "UnsafeWeights", 1)  # trying again would be in vain
    assert not (folder / "ran").exists()
    row = part_row(batch.parts.get())
    assert (
        "code of their own" in sentence_of(row.failed_job) and str(folder) in row.failed_job.error and row.n_left == 2
    )
    assert batch_page(batch).can_resume


def test_a_folder_that_left_the_allowed_ones_is_not_read(weights, settings, tmp_path):
    batch = launch(local_system(weights), dataset=make_dataset(1))
    settings.MODEL_DIRS = [tmp_path]
    (job,) = run(batch)
    assert (job.state, job.error_class) == ("failed", "FolderRefused")
    assert "MODEL_DIRS" in sentence_of(part_row(batch.parts.get()).failed_job)


def test_trying_out_tells_the_family_and_refuses_another_one(weights, monkeypatch, tmp_path):
    monkeypatch.setattr(trying, "run_worker", run_worker_in(tmp_path))
    runtime = local_system(weights).runtime
    run_job(try_soon(runtime, by_id=None).pk)
    job = Job.objects.get(kind=TRY)
    assert (job.state, job.error) == ("done", "")
    assert job.result["spec"]["family"] == "causal" and job.result["text"] and not Response.objects.exists()
    with pytest.raises(local.OtherFamily, match="causal, not chatglm"):
        local.check_family(LocalSettings(weights="w", family="chatglm"), "causal")


def test_every_error_has_a_sentence():
    classes = {cls.__name__ for cls in EngineError.__subclasses__()} - {
        "ContextTooLong",
        "EmptyDialogue",
        "PromptRefused",
    }
    codes = {cls.code for cls in (ContextTooLong, EmptyDialogue, PromptRefused)} | {kind.value for kind in Kind}
    children = {cls.__name__ for cls in ChildFailed.__subclasses__()}
    general = explain("no such code")
    assert not [code for code in classes | codes | children if explain(code) == general]
