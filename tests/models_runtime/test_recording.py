"""Responses on their way into the database: each once, never two, and nothing by whoever lost the job."""

from __future__ import annotations

import pytest

from annotation.models import Response
from annotation.services.responses import unstored
from jobs.errors import CancelRequested, LostLease
from jobs.models import Job
from models_runtime.models import GenerationBatch
from models_runtime.services import recording
from models_runtime.services.recording import Recorder
from tests import factories
from tests.models_runtime.batches import claimed, launch, local_system, make_dataset

pytestmark = pytest.mark.django_db


@pytest.fixture
def recorder(settings, tmp_path) -> Recorder:
    settings.MODEL_DIRS = [tmp_path]
    part, running = claimed(launch(local_system(tmp_path / "toy"), dataset=make_dataset(3)))
    return Recorder(running, part)


@pytest.fixture
def ids(recorder) -> list[int]:
    return list(recorder.part.batch.batch_items.values_list("item_id", flat=True))


def test_the_same_text_twice_is_stored_once(recorder, ids):
    for _ in range(2):
        recorder.response(ids[0], 0, "我在听。", {"a": 1})
        recorder.flush()
    assert (Response.objects.count(), recorder.n_stored, recorder.n_dropped) == (1, 1, 0)


def test_a_second_text_is_never_written(recorder, ids):
    kept = factories.make_response(recorder.part.batch.items.get(pk=ids[0]), recorder.part.system, "先来的。")
    recorder.response(ids[0], 0, "后到的。", {})
    recorder.response(ids[1], 0, "没人写过。", {})
    recorder.flush()
    assert set(Response.objects.values_list("text", flat=True)) == {kept.text, "没人写过。"}
    assert (recorder.n_stored, recorder.n_dropped) == (1, 1)


def test_one_that_comes_in_between_looking_and_writing_is_met(recorder, ids, monkeypatch):
    """As on PostgreSQL, where another batch may commit in that instant."""
    kept = factories.make_response(recorder.part.batch.items.get(pk=ids[0]), recorder.part.system, "先来的。")
    looks = []

    def too_early(responses):
        looks.append(len(responses))
        return (list(responses), []) if len(looks) == 1 else unstored(responses)

    monkeypatch.setattr(recording, "unstored", too_early)
    recorder.response(ids[0], 0, "后到的。", {})
    recorder.response(ids[1], 0, "没人写过。", {})
    recorder.flush()
    assert set(Response.objects.values_list("text", flat=True)) == {kept.text, "没人写过。"}
    assert (recorder.n_stored, recorder.n_dropped) == (1, 1)


def test_what_no_database_can_hold_is_replaced(recorder, ids):
    """Byte tokens may make a NUL or half of a surrogate pair."""
    recorder.response(ids[0], 0, "我\x00在\ud800听。", {"raw_text": "\x00", "n": 1})
    recorder.flush()
    response = Response.objects.get()
    assert response.original == "我\ufffd在\ufffd听。" and response.provenance["raw_text"] == "\ufffd"


def test_whoever_lost_the_job_writes_nothing(recorder, ids):
    Job.objects.update(token=99)
    with pytest.raises(LostLease):
        recorder.response(ids[0], 0, "我在听。", {})
        recorder.flush()
    assert not Response.objects.exists()


def test_what_was_made_is_stored_before_the_wish_to_stop_is_met(recorder, ids):
    GenerationBatch.objects.update(intent="pause")
    with pytest.raises(CancelRequested):
        recorder.response(ids[0], 0, "我在听。", {})
    assert Response.objects.count() == 1


def test_failures_count_their_attempts_and_go_when_a_response_comes(recorder, ids):
    failures = recorder.part.failures
    for number in range(2):
        recorder.failure(ids[0], 0, "timeout", "too slow", 3)
        recorder.flush()
        failures.update(is_waiting=True)
        assert failures.get().attempts == 3 * (number + 1)
    recorder.failure(ids[1], 0, "timeout", "too slow")
    recorder.response(ids[0], 0, "我在听。", {})
    recorder.flush()
    assert list(failures.values_list("item_id", "is_waiting")) == [(ids[1], False)]


def test_a_text_of_special_tokens_alone_is_a_failure(recorder, ids):
    recorder.response(ids[0], 0, "<|endoftext|> \n", {})
    recorder.flush()
    assert recorder.part.failures.get().code == "empty_response" and not Response.objects.exists()
    assert (recorder.n_stored, recorder.n_failed) == (0, 1)


def test_a_response_that_names_its_system_is_marked(recorder, ids):
    recorder.response(ids[0], 0, f"我是{recorder.part.system.name}。", {})
    recorder.flush()
    assert Response.objects.get().disclosures
