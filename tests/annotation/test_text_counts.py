"""Counts of words are there once responses are in, follow their texts, and make the tables of the text metrics."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from io import StringIO

import numpy as np
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from annotation import counting, tasks
from annotation.models import Dataset, Item, Response, StudyItem, System, TextCounts
from annotation.selectors.text import counting_state, text_statistics
from annotation.services import text_counts
from annotation.services.text_counts import count_texts
from annotation.services.uploads import store_upload
from jobs import ledger
from jobs.errors import LostLease
from jobs.models import Job
from jobs.tasks import run_job
from metrics.text import CHAR, CHATGLM, REFERENCE, References, TextStatistics, tokens_of
from metrics.text import text_statistics as counted_directly
from tests import factories
from tests.architecture.messages import ROOT
from tests.metrics.sentences import compose

pytestmark = pytest.mark.django_db
TOKENS = tokens_of(CHATGLM, REFERENCE, CHAR)


@pytest.fixture
def dataset(db) -> Dataset:
    """Six items of three dialogues; two systems have answered all of them, the second one twice."""
    dataset = factories.make_dataset("pilot")
    systems = [factories.make_system(slug) for slug in ("soulchat", "mechat")]
    texts = iter(compose(24, seed=3, odd_share=0.5))
    for number in range(6):
        item = factories.make_item(dataset, reference=next(texts), dialogue_key=f"d{number % 3}")
        for system in systems:
            factories.make_response(item, system, next(texts))
        factories.make_response(item, systems[1], next(texts), repeat=1)
    return dataset


@pytest.fixture
def no_hints(monkeypatch):
    """Hints are not sent: the tests run the jobs."""
    monkeypatch.setattr(run_job, "apply_async", lambda **arguments: None)


def counted_in(dataset: Dataset) -> dict[int, bytes]:
    """Response id ► its row of counts."""
    rows = TextCounts.objects.filter(response__item__dataset=dataset)
    return {pk: bytes(values) for pk, values in rows.values_list("response_id", "values")}


def expected(response: Response) -> TextStatistics:
    """The same response, counted by itself."""
    return counted_directly([response.text], References([response.item.reference or None], tokens=TOKENS))


def is_right(response: Response) -> bool:
    stored = counting.unpacked([bytes(TextCounts.objects.get(response=response).values)])
    return bool(np.array_equal(stored, expected(response).values))


# --- Counting -------------------------------------------------------------------------------------------


def test_every_response_is_counted_once(dataset):
    assert count_texts(dataset=dataset) == text_counts.Counted(18, 0)
    assert all(is_right(response) for response in Response.objects.select_related("item"))
    before = counted_in(dataset), set(TextCounts.objects.values_list("pk", flat=True))
    assert count_texts(dataset=dataset) == text_counts.Counted(0, 18)
    assert (counted_in(dataset), set(TextCounts.objects.values_list("pk", flat=True))) == before


def test_what_is_new_is_counted_and_nothing_else(dataset):
    first, second = System.objects.order_by("pk")
    assert count_texts(dataset=dataset, systems=[second]) == text_counts.Counted(12, 0)
    assert count_texts(dataset=dataset, systems=[second]) == text_counts.Counted(0, 12)
    assert count_texts(dataset=dataset) == text_counts.Counted(6, 12)
    factories.make_response(factories.make_item(dataset), first)
    assert count_texts(dataset=dataset) == text_counts.Counted(1, 18)


def test_parts_make_no_difference(dataset, monkeypatch):
    count_texts(dataset=dataset)
    whole = counted_in(dataset)
    TextCounts.objects.all().delete()
    monkeypatch.setattr(text_counts, "RESPONSES_AT_ONCE", 4)  # cuts through items and through systems
    seen: list[tuple[int, int | None]] = []
    count_texts(dataset=dataset, on_progress=lambda stage, done, total: seen.append((done, total)))
    assert counted_in(dataset) == whole
    assert seen == [(0, 18), (4, 18), (8, 18), (12, 18), (16, 18), (18, 18)]


def test_another_reference_is_counted_anew(dataset):
    count_texts(dataset=dataset)
    item, other = Item.objects.order_by("pk")[:2]
    before = counted_in(dataset)
    Item.objects.filter(pk=item.pk).update(reference="我会一直陪着你。")
    gone = before.keys() - counted_in(dataset).keys()
    assert gone == set(item.responses.values_list("pk", flat=True))
    assert count_texts(dataset=dataset) == text_counts.Counted(3, 15)
    assert all(is_right(response) for response in Response.objects.select_related("item"))
    after = counted_in(dataset)
    assert all((after[pk] != before[pk]) == (pk in gone) for pk in after)
    Item.objects.filter(pk=other.pk).update(topic="sleep")  # has no bearing on any count
    assert counted_in(dataset) == after


def test_another_text_is_counted_anew(dataset):
    count_texts(dataset=dataset)
    response = Response.objects.first()
    Response.objects.filter(pk=response.pk).update(text="我听到了。")
    assert count_texts(dataset=dataset) == text_counts.Counted(1, 17)
    assert is_right(Response.objects.get(pk=response.pk))


def test_another_dictionary_makes_all_counts_old(dataset, monkeypatch):
    study = study_over(dataset)
    count_texts(dataset=dataset)
    before = counting_state(study)
    counting.cutting_hash.cache_clear()
    monkeypatch.setattr("metrics.segmentation._version", lambda package: "99.0")
    try:
        assert counting_state(study).n_counted == 0
        assert not any(len(part.all_items) for part in text_statistics(study).values())
        assert count_texts(dataset=dataset) == text_counts.Counted(18, 0)
        assert TextCounts.objects.count() == 18
        now = counting_state(study)
        assert now.is_complete
        assert now != before
        assert dict(text_statistics(study)["pilot"].all_items.arms["A"].source)["words"].count("99.0") == 2
    finally:
        counting.cutting_hash.cache_clear()


def test_a_response_without_a_reference_still_has_length_and_variety(dataset):
    item = factories.make_item(dataset, reference="")
    response = factories.make_response(item, System.objects.first(), "好的，好的。")
    count_texts(dataset=dataset)
    row = counting.unpacked([bytes(response.text_counts.values)])
    table = counting.statistics(row, counting.source([None]))
    assert table.n() == {"pairs": 0, "blank_hypotheses": 0, "blank_references": 0, "missing": 1}
    assert table.column("codepoints.hypothesis_length").tolist() == [6]
    assert table.column("characters.hypothesis_set_1").tolist() == [4]
    assert table.column("codepoints.match_1").tolist() == [0]


def test_blank_sides_are_counted_as_blank(dataset):
    item = factories.make_item(dataset, reference=" \n")
    blank = factories.make_response(item, System.objects.first(), "\u3000")
    full = factories.make_response(item, System.objects.last(), "嗯")
    count_texts(dataset=dataset)
    assert is_right(blank)
    assert is_right(full)
    rows = counting.unpacked([bytes(r.text_counts.values) for r in (blank, full)])
    table = counting.statistics(rows, counting.source([" \n", " \n"]))
    assert table.n() == {"pairs": 2, "blank_hypotheses": 1, "blank_references": 2, "missing": 0}


def test_memory_does_not_grow_with_the_dataset(dataset, monkeypatch):
    """At most a part's texts are asked for at once, and what is asked does not depend on how much is done."""
    monkeypatch.setattr(text_counts, "RESPONSES_AT_ONCE", 3)
    sizes = []
    texts = text_counts._texts

    def watched(ids, **options):
        sizes.append(len(ids))
        return texts(ids, **options)

    monkeypatch.setattr(text_counts, "_texts", watched)
    with CaptureQueriesContext(connection) as queries:
        count_texts(dataset=dataset)
    assert max(sizes) == 3
    assert len(sizes) == 2 * 18 / 3
    whole = [query for query in queries if '"annotation_response"."text"' in query["sql"]]
    assert len(whole) == len(sizes)


@pytest.mark.slow  # two processes that start from nothing and read the dictionary: some seconds
def test_several_processes_make_no_difference(dataset, monkeypatch):
    count_texts(dataset=dataset)
    whole = counted_in(dataset)
    TextCounts.objects.all().delete()
    monkeypatch.setattr(text_counts, "RESPONSES_AT_ONCE", 4)
    assert count_texts(dataset=dataset, processes=2) == text_counts.Counted(18, 0)
    assert counted_in(dataset) == whole


# --- Interruptions --------------------------------------------------------------------------------------


def test_what_was_counted_stays_when_the_work_breaks_off(dataset, monkeypatch):
    monkeypatch.setattr(text_counts, "RESPONSES_AT_ONCE", 4)

    def break_off(stage, done, total):
        if done == 8:
            raise LostLease

    with pytest.raises(LostLease):
        count_texts(dataset=dataset, on_progress=break_off)
    assert len(counted_in(dataset)) == 8
    assert count_texts(dataset=dataset) == text_counts.Counted(10, 8)
    assert all(is_right(response) for response in Response.objects.select_related("item"))


def test_a_part_is_written_whole_or_not_at_all(dataset, monkeypatch):
    monkeypatch.setattr(text_counts, "ROWS_PER_STATEMENT", 2)
    bulk_create, calls = type(TextCounts.objects).bulk_create, []

    def fail_at_last(self, rows, batch_size):
        calls.append(bulk_create(self, list(rows)[:5], batch_size=batch_size))
        raise OSError("disk full")

    monkeypatch.setattr(type(TextCounts.objects), "bulk_create", fail_at_last)
    with pytest.raises(OSError, match="disk full"), transaction.atomic():
        count_texts(dataset=dataset)
    assert len(calls[0]) == 5
    assert not counted_in(dataset)


def test_a_text_that_changes_meanwhile_gets_no_wrong_counts(dataset, monkeypatch):
    """Between reading and writing somebody changes a reference, a text, and takes a response away."""
    item = Item.objects.first()
    changed, gone = Response.objects.exclude(item=item)[:2]
    work = text_counts.system_statistics

    def meanwhile(*args, **kwargs):
        Item.objects.filter(pk=item.pk).update(reference="换了一句话。")
        Response.objects.filter(pk=changed.pk).update(text="换了。")
        Response.objects.filter(pk=gone.pk).delete()
        return work(*args, **kwargs)

    monkeypatch.setattr(text_counts, "system_statistics", meanwhile)
    assert count_texts(dataset=dataset) == text_counts.Counted(18 - 3 - 2, 0)
    assert not TextCounts.objects.filter(response__item=item).exists()
    monkeypatch.undo()
    assert count_texts(dataset=dataset) == text_counts.Counted(4, 13)
    assert all(is_right(response) for response in Response.objects.select_related("item"))


def test_two_at_once_do_no_harm(dataset, monkeypatch):
    """The second one counts and writes everything while the first one is between reading and writing."""
    work = text_counts.system_statistics

    def second(*args, **kwargs):
        monkeypatch.setattr(text_counts, "system_statistics", work)
        count_texts(dataset=dataset)
        return work(*args, **kwargs)

    monkeypatch.setattr(text_counts, "system_statistics", second)
    assert count_texts(dataset=dataset) == text_counts.Counted(18, 0)
    assert len(counted_in(dataset)) == 18
    assert all(is_right(response) for response in Response.objects.select_related("item"))


KILLED = """
import os, signal, django
django.setup()
from annotation.models import Dataset
from annotation.services import text_counts
text_counts.RESPONSES_AT_ONCE = 4
statements = []
def die(execute, sql, params, many, context):
    result = execute(sql, params, many, context)
    statements.append(sql.startswith("INSERT"))
    if sum(statements) == 3:
        os.kill(os.getpid(), signal.SIGKILL)  # rows of the third part are written, and not committed
    return result
from django.db import connection
with connection.execute_wrapper(die):
    text_counts.count_texts(dataset=Dataset.objects.get())
"""


@pytest.mark.slow  # three processes with a database of their own: about six seconds
def test_a_killed_process_leaves_whole_parts_behind(tmp_path):
    """In a database of its own, since a test's own transaction would not show what was committed."""
    env = os.environ | {"DATABASE_URL": f"sqlite:///{tmp_path / 'site.sqlite3'}", "PYTHONPATH": str(ROOT)}
    env |= {"DJANGO_SETTINGS_MODULE": "config.settings.test", "QINGTING_DATA_DIR": str(tmp_path)}

    def python(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
        )

    made = python(
        "import django; django.setup()\n"
        "from django.core.management import call_command; call_command('migrate', verbosity=0)\n"
        "from tests import factories; factories.make_study(n_items=5)"
    )
    assert made.returncode == 0, made.stderr
    assert python(KILLED).returncode == -signal.SIGKILL
    told = python(
        "import django; django.setup()\n"
        "from annotation.models import Dataset, TextCounts\n"
        "from annotation.services.text_counts import count_texts\n"
        "print(TextCounts.objects.count(), count_texts(dataset=Dataset.objects.get()), TextCounts.objects.count())"
    )
    assert told.stdout.strip() == "8 Counted(n_counted=12, n_unchanged=8) 20", told.stderr


# --- Doors ----------------------------------------------------------------------------------------------


def import_file(dataset: Dataset, rows: list[dict]) -> Job:
    """The job of an import as the page makes it."""
    name = store_upload(SimpleUploadedFile("rows.jsonl", "\n".join(map(json.dumps, rows)).encode()))
    options = {"format": None, "system": "", "create_systems": False}
    params = {"upload": name, "file_name": "rows.jsonl", "options": options, "dataset_id": dataset.pk}
    return ledger.enqueue(kind=tasks.IMPORT_RESPONSES, params=params)


def test_an_import_has_its_responses_counted(dataset, no_hints, settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path
    item = factories.make_item(dataset)
    job = import_file(dataset, [{"item": item.key, "system": "soulchat", "response": "我在听。"}])
    run_job(job.pk)
    assert Job.objects.get(pk=job.pk).state == "done", Job.objects.get(pk=job.pk).error
    counting_job = Job.objects.get(kind=tasks.COUNT_TEXTS)
    assert (counting_job.state, counting_job.params) == ("queued", {"dataset_id": dataset.pk})
    run_job(counting_job.pk)
    counting_job.refresh_from_db()
    assert (counting_job.state, counting_job.result) == ("done", {"counts": {"n_counted": 19, "n_unchanged": 0}})
    assert (counting_job.n_done, counting_job.n_total) == (19, 19)
    assert is_right(Response.objects.select_related("item").get(item=item))


def test_only_one_job_waits_for_a_dataset(dataset, no_hints):
    other = factories.make_dataset("other")
    for _ in range(3):
        tasks.count_texts_soon(dataset)
    tasks.count_texts_soon(other)
    assert Job.objects.filter(kind=tasks.COUNT_TEXTS).count() == 2
    ledger.claim(Job.objects.filter(params__dataset_id=dataset.pk).get().pk, worker="w")
    tasks.count_texts_soon(dataset)  # the one that runs may have passed the new responses by
    assert Job.objects.filter(kind=tasks.COUNT_TEXTS).count() == 3


def test_opening_a_study_has_the_reference_counted(study, researcher, as_user, no_hints):
    System.objects.create(slug="human", name="Human", kind=System.Kind.REFERENCE)
    factories.seat_raters(study)
    as_user(researcher).post(f"/studies/{study.public_id}/open/")
    study.refresh_from_db()
    assert study.is_open
    assert Job.objects.get(kind=tasks.COUNT_TEXTS).params == {"dataset_id": Dataset.objects.get().pk}


def test_the_import_command_counts_at_once(dataset, tmp_path):
    item = factories.make_item(dataset)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"item": item.key, "system": "soulchat", "response": "我在听。"}))
    out = StringIO()
    call_command("import_responses", "pilot", str(path), stdout=out)
    assert "Counted for the text metrics: 19" in out.getvalue()
    assert len(counted_in(dataset)) == 19


def test_the_repair_command_says_what_it_did(dataset):
    factories.make_dataset("other")
    out = StringIO()
    call_command("count_texts", stdout=out)
    assert out.getvalue().splitlines() == ["other: 0 counted, 0 up to date", "pilot: 18 counted, 0 up to date"]
    TextCounts.objects.first().delete()
    out = StringIO()
    call_command("count_texts", "--dataset", "pilot", stdout=out)
    assert out.getvalue().splitlines() == ["pilot: 1 counted, 17 up to date"]
    with pytest.raises(CommandError, match="no dataset “nowhere”"):
        call_command("count_texts", "--dataset", "nowhere")
    with pytest.raises(CommandError, match="1 or more"):
        call_command("count_texts", "--processes", "0")


# --- Tables ---------------------------------------------------------------------------------------------


def study_over(*datasets: Dataset):
    """An opened study over the systems; raters see the first two items of each dataset."""
    study = factories.make_study(
        dataset=datasets[0], systems=list(System.objects.order_by("pk")), n_items=0, raters_per_item=1, n_raters=1
    )
    number = 0
    for dataset in datasets:
        for item in dataset.items.order_by("pk")[:2]:
            number += 1
            StudyItem.objects.create(study=study, item=item, number=number)
    return factories.open_for_rating(study)


def direct(items: list[Item], system: System) -> TextStatistics:
    texts = [item.responses.get(system=system, repeat=0).text for item in items]
    return counted_directly(texts, References([item.reference for item in items], tokens=TOKENS))


def same(first: TextStatistics, second: TextStatistics) -> bool:
    return (
        np.array_equal(first.values, second.values)
        and (first.columns, first.source) == (second.columns, second.source)
        and first.values.dtype == second.values.dtype
    )


def test_a_study_s_tables_are_those_that_direct_counting_gives(dataset):
    other = factories.make_dataset("another")
    for _ in range(3):
        item = factories.make_item(other)
        for system in System.objects.all():
            factories.make_response(item, system)
    study = study_over(dataset, other)
    half = factories.make_item(dataset)  # answered by one system only
    factories.make_response(half, System.objects.first())
    silent = factories.make_item(dataset, reference="")
    for system in System.objects.all():
        factories.make_response(silent, system)
    for each in (dataset, other):
        count_texts(dataset=each)
    found = text_statistics(study)
    assert list(found) == ["another", "pilot"]
    for each in (dataset, other):
        items = [item for item in each.items.order_by("pk") if item not in (half, silent)]
        for part, wanted in ((found[each.slug].all_items, items), (found[each.slug].study_items, items[:2])):
            assert part.items.tolist() == [item.pk for item in wanted]
            assert list(part.arms) == ["A", "B"]
            for arm in study.arms.all():
                assert same(part.arms[arm.code], direct(wanted, arm.system))
    dialogues = [item.dialogue_key for item in dataset.items.order_by("pk")[:6]]
    clusters = found["pilot"].all_items.clusters
    assert [[a == b for b in dialogues] for a in dialogues] == (clusters[:, None] == clusters).tolist()


def test_items_that_are_not_counted_for_every_arm_are_left_out(dataset):
    study = study_over(dataset)
    assert (counting_state(study).n_counted, counting_state(study).n_all) == (0, 12)
    assert len(text_statistics(study)["pilot"].all_items) == 0
    first = System.objects.order_by("pk")[0]
    count_texts(dataset=dataset, systems=[first])
    assert (counting_state(study).n_counted, counting_state(study).is_complete) == (6, False)
    assert len(text_statistics(study)["pilot"].all_items) == 0
    count_texts(dataset=dataset)
    assert counting_state(study).is_complete
    assert len(text_statistics(study)["pilot"].all_items) == 6
    Item.objects.filter(pk=dataset.items.last().pk).update(reference="别的话。")
    assert len(text_statistics(study)["pilot"].all_items) == 5


def test_a_draft_has_no_tables(study):
    assert text_statistics(study) == {}
    assert counting_state(study).n_all == 16


def test_the_state_changes_with_the_counts_and_only_with_them(dataset):
    study = study_over(dataset)
    count_texts(dataset=dataset)
    states = [counting_state(study)]
    count_texts(dataset=dataset)
    factories.make_response(factories.make_item(factories.make_dataset()), System.objects.first())
    assert counting_state(study) == states[0]

    item = dataset.items.last()
    Item.objects.filter(pk=item.pk).update(reference="别的话。")
    states.append(counting_state(study))
    count_texts(dataset=dataset)
    states.append(counting_state(study))
    factories.make_response(factories.make_item(dataset), System.objects.first())
    states.append(counting_state(study))
    assert len({str(state) for state in states}) == 4
    assert [state.is_complete for state in states] == [True, False, True, False]


def test_more_items_need_no_more_queries(dataset):
    study = study_over(dataset)
    count_texts(dataset=dataset)
    with CaptureQueriesContext(connection) as few:
        text_statistics(study)
        counting_state(study)
    for _ in range(30):
        item = factories.make_item(dataset)
        for system in System.objects.all():
            factories.make_response(item, system)
    count_texts(dataset=dataset)
    with CaptureQueriesContext(connection) as many:
        text_statistics(study)
        counting_state(study)
    assert len(many) == len(few) == 3 + (1 + 2) + 4
