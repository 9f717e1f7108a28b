"""Datasets, imports, systems and jobs by page: for admins only, readable, and hostile text stays text."""

from __future__ import annotations

import json
import os
import time
import uuid
from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from django.utils import timezone

from annotation import tasks
from annotation.models import Dataset, ImportRecord, Item, Response, System
from annotation.selectors import jobs as selectors_jobs
from annotation.selectors import library as selectors_library
from annotation.services.systems import register_preset
from jobs import ledger
from jobs.models import Job
from jobs.tasks import run_job
from tests import factories

pytestmark = pytest.mark.django_db

EVIL = '<script>alert("x")</script>'
GOOD_ROW = {"key": "a#1", "dialogue": "a", "topic": "家庭", "turns": "来访者：你好", "reference": "我在。"}


@pytest.fixture(autouse=True)
def media(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path / "uploads"
    return Path(settings.MEDIA_ROOT)


@pytest.fixture
def page(as_user, admin):
    """page(name, …) -> the response to the admin's GET."""
    client = as_user(admin)
    return lambda name, *args, query="": client.get(reverse(name, args=args) + query)


@pytest.fixture
def send(as_user, admin):
    """send(name, data, …) -> the response to the admin's POST."""
    client = as_user(admin)
    return lambda name, data, *args, query="": client.post(reverse(name, args=args) + query, data)


def upload(*rows: dict, name: str = "items.jsonl") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode())


def form(**fields) -> dict:
    return {"name": "Pilot", "slug": "pilot", "seed": 1, "file": upload(GOOD_ROW), **fields}


def text_of(response) -> str:
    return response.content.decode()


def uploads(media: Path) -> list[Path]:
    folder = media / "imports"
    return list(folder.iterdir()) if folder.is_dir() else []


# --- Who may come here ----------------------------------------------------------------------------------

NAMES = ["dataset_list", "import_new", "system_list", "system_new", "job_list"]
DETAILS = ["dataset_detail", "import_detail", "system_detail", "job_detail", "job_fragment"]


@pytest.mark.parametrize("name", NAMES)
def test_only_admins_find_these_pages(as_user, admin, researcher, stranger, client, name):
    assert as_user(admin).get(reverse(name)).status_code == 200
    assert as_user(researcher).get(reverse(name)).status_code == 404
    assert as_user(stranger).get(reverse(name)).status_code == 404
    assert client.get(reverse(name)).status_code == 302


@pytest.fixture
def things(admin) -> dict[str, uuid.UUID]:
    dataset = factories.make_dataset("d")
    imported = ImportRecord.objects.create(
        kind="items", dataset=dataset, file_name="f", file_sha256="0" * 64, options_sha256="1" * 64
    )
    job = ledger.enqueue(kind=tasks.IMPORT_ITEMS, params={}, by_id=admin.pk)
    return {
        "dataset_detail": dataset.public_id,
        "import_detail": imported.public_id,
        "system_detail": factories.make_system("s").public_id,
        "job_detail": job.public_id,
        "job_fragment": job.public_id,
    }


@pytest.mark.parametrize("name", DETAILS)
def test_only_admins_find_these_things(as_user, admin, researcher, stranger, things, name):
    url = reverse(name, args=[things[name]])
    assert as_user(admin).get(url).status_code == 200
    assert as_user(admin).get(reverse(name, args=[uuid.uuid4()])).status_code == 404
    for person in (researcher, stranger):
        assert as_user(person).get(url).status_code == 404


@pytest.mark.parametrize("name", ["job_cancel", "job_retry"])
def test_what_changes_a_job_is_posted_by_admins(as_user, admin, researcher, things, name):
    url = reverse(name, args=[things["job_detail"]])
    assert as_user(admin).get(url).status_code == 405
    assert as_user(researcher).post(url).status_code == 404
    assert as_user(admin, enforce_csrf_checks=True).post(url).status_code == 403
    assert Job.objects.get().state == "queued"


# --- Importing ------------------------------------------------------------------------------------------


def test_a_file_waits_under_a_name_of_ours_until_its_job_is_done(send, page, media, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks() as hints:
        answer = send("import_new", form(file=upload(GOOD_ROW, name="../../etc/evil<b>.jsonl")))
    assert len(hints) == 1
    job = Job.objects.get()
    assert answer.url == reverse("job_detail", args=[job.public_id])
    (stored,) = uploads(media)
    assert stored.name == job.params["upload"]
    assert (stored.stat().st_mode & 0o777, stored.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    waiting = text_of(page("job_detail", job.public_id))
    assert 'hx-trigger="every 2s"' in waiting and "Waiting" in waiting

    run_job(job.pk)
    done = text_of(page("job_detail", job.public_id))
    assert "hx-trigger" not in done and "htmx-2" not in done
    assert "The file is in." in done
    assert "<b>.jsonl" not in done
    assert uploads(media) == []
    assert Item.objects.get().key == "a#1"
    assert Dataset.objects.get(slug="pilot").n_items == 1


def test_the_same_file_again_says_that_nothing_changed(send, page):
    for data in (form(), {"seed": 1, "file": upload(GOOD_ROW)}):
        if dataset := Dataset.objects.first():
            data["dataset"] = str(dataset.public_id)
        send("import_new", data)
        run_job(Job.objects.latest("created_at").pk)
    assert "Nothing changed" in text_of(page("job_detail", Job.objects.latest("created_at").public_id))
    assert ImportRecord.objects.count() == 1


def test_a_repeated_import_does_not_count_as_new_what_is_there(send, page):
    send("import_new", form())
    run_job(Job.objects.get().pk)
    send("import_new", {"dataset": Dataset.objects.get().public_id, "seed": 1, "file": upload(GOOD_ROW)})
    again = Job.objects.latest("pk")
    run_job(again.pk)
    text = text_of(page("job_detail", again.public_id))
    assert "Nothing changed" in text
    assert "<dt>New</dt>" not in text


def test_a_job_that_nobody_takes_says_so(send, page):
    send("import_new", form())
    job = Job.objects.get()
    assert "No worker has taken this job" not in text_of(page("job_detail", job.public_id))
    Job.objects.filter(pk=job.pk).update(created_at=timezone.now() - selectors_jobs.LONG_WAIT * 2)
    assert "No worker has taken this job" in text_of(page("job_detail", job.public_id))


def test_a_bad_file_shows_every_problem_with_its_place(send, page, media):
    rows = [GOOD_ROW, {"key": "b"}, {"key": EVIL, "turns": EVIL}, GOOD_ROW]
    send("import_new", form(file=upload(*rows, name=f"{EVIL}.jsonl")))
    job = Job.objects.get()
    run_job(job.pk)
    shown = text_of(page("job_detail", job.public_id))
    assert "There are 3 problems" in shown
    for place in ("line 2", "line 3", "line 4", "line 1"):
        assert place in shown
    assert "<script>alert" not in shown and "&lt;script&gt;alert" in shown
    assert Dataset.objects.count() == Item.objects.count() == 0
    assert uploads(media) == []
    assert "Try again" not in shown  # the same file would be just as wrong


def test_problems_are_kept_as_codes_so_that_every_reader_gets_them_in_their_language(send):
    send("import_new", form(file=upload({"key": "b"})))
    job = Job.objects.get()
    run_job(job.pk)
    row = Job.objects.get().result["problems"][0]
    assert (row["code"], row["number"], row["field"]) == ("missing", 1, "turns")


def test_responses_come_in_by_the_same_door(send, page):
    dataset = factories.make_dataset("pilot")
    item = factories.make_item(dataset, "1")
    register_preset(slug="mechat", by=None)
    rows = upload({"item": "1", "response": f"好的 {EVIL}"}, name="r.jsonl")
    send("import_new", {"dataset": str(dataset.public_id), "system": "mechat", "file": rows}, query="?kind=responses")
    run_job(Job.objects.get().pk)
    assert Response.objects.get().item == item
    assert "<script>alert" not in text_of(page("dataset_detail", dataset.public_id))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"slug": ""}, "slug"),
        ({"slug": "no slug!"}, "slug"),
        ({"slug": "taken"}, "slug"),
        ({"sample": "0"}, "sample"),
        ({"seed": "-1"}, "seed"),
        ({"format": "exe"}, "format"),
        ({"file": ""}, "file"),
        ({"dataset": str(uuid.uuid4())}, "dataset"),
    ],
)
def test_a_form_that_is_not_right_enqueues_nothing(send, media, changes, field):
    factories.make_dataset("taken")
    answer = send("import_new", form(**changes))
    assert answer.status_code == 422
    assert field in answer.context["form"].errors
    assert Job.objects.count() == 0 and uploads(media) == []


def test_a_file_that_is_too_large_is_not_kept(send, media, settings):
    settings.UPLOAD_MAX_BYTES = 10
    answer = send("import_new", form())
    assert "larger than" in str(answer.context["form"].errors)
    assert uploads(media) == []


def test_an_empty_file_is_refused_by_the_job_in_words(send, page):
    send("import_new", form(file=SimpleUploadedFile("x.csv", b"")))
    job = Job.objects.get()
    run_job(job.pk)
    assert "The file is empty." in text_of(page("job_detail", job.public_id))


# --- Jobs -----------------------------------------------------------------------------------------------


def test_a_waiting_import_is_cancelled_and_its_file_goes(send, page, media):
    send("import_new", form())
    job = Job.objects.get()
    send("job_cancel", {}, job.public_id)
    assert Job.objects.get().state == "cancelled"
    assert uploads(media) == []
    run_job(job.pk)
    assert Dataset.objects.count() == 0
    assert "Try again" not in text_of(page("job_detail", job.public_id))
    send("job_retry", {}, job.public_id)
    assert Job.objects.get().state == "cancelled"


def test_an_import_that_failed_through_no_fault_of_its_file_can_be_tried_again(send, page, media, monkeypatch):
    send("import_new", form())
    job = Job.objects.get()
    Job.objects.update(max_attempts=1)
    with monkeypatch.context() as broken:

        def fall(**arguments):
            raise MemoryError(EVIL)

        broken.setattr(tasks, "import_items", fall)
        run_job(job.pk)
    shown = text_of(page("job_detail", job.public_id))
    assert "MemoryError" in shown and "<script>alert" not in shown and "Try again" in shown
    assert len(uploads(media)) == 1
    send("job_retry", {}, job.public_id)
    run_job(job.pk)
    assert Job.objects.get().state == "done"
    assert uploads(media) == []


def test_a_cancelled_import_leaves_nothing_behind(send, media, monkeypatch):
    """Asked to stop while the rows are being written: the transaction is rolled back."""
    send("import_new", form())
    job = Job.objects.get()
    whole = tasks.import_items

    def asked_meanwhile(*, on_progress, **arguments):
        def beat(stage, done, total):
            if stage == "Writing":
                Job.objects.filter(pk=job.pk).update(cancel_requested_at=timezone.now())
                ledger.heartbeat(ledger.Claim(job.pk, 1))

        return whole(on_progress=beat, **arguments)

    monkeypatch.setattr(tasks, "import_items", asked_meanwhile)
    run_job(job.pk)
    assert Dataset.objects.count() == Item.objects.count() == 0
    assert uploads(media) == []


def test_a_worker_that_lost_its_lease_cannot_commit_its_rows(send, media, monkeypatch):
    """Taken back between reading and writing: the last heartbeat lies within the transaction that writes."""
    send("import_new", form())
    job = Job.objects.get()
    whole = tasks.import_items

    def overtaken(*, on_progress, **arguments):
        def beat(stage, done, total):
            on_progress(stage, done, total)
            if stage == "Writing" and done == 0:
                Job.objects.filter(pk=job.pk).update(token=99)

        return whole(on_progress=beat, **arguments)

    monkeypatch.setattr(tasks, "import_items", overtaken)
    run_job(job.pk)
    assert Job.objects.get().state == "running"  # in the hands of whoever holds token 99
    assert Dataset.objects.count() == Item.objects.count() == ImportRecord.objects.count() == 0
    assert len(uploads(media)) == 1


def test_stale_uploads_go_and_those_that_are_needed_stay(send, media):
    send("import_new", form())
    orphan = media / "imports" / "orphan"
    orphan.write_text("x")
    fresh = media / "imports" / "fresh"
    fresh.write_text("x")
    long_ago = time.time() - tasks.KEEP_UPLOADS.total_seconds() - 60
    for path in uploads(media):
        if path != fresh:
            os.utime(path, (long_ago, long_ago))
    tasks.remove_stale_uploads()
    assert {path.name for path in uploads(media)} == {"fresh", Job.objects.get().params["upload"]}


def test_a_job_whose_file_is_gone_says_so(send, page, media):
    send("import_new", form())
    uploads(media)[0].unlink()
    job = Job.objects.get()
    run_job(job.pk)
    assert "no longer here" in text_of(page("job_detail", job.public_id))


def test_an_upload_name_cannot_lead_out_of_its_folder(admin, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    job = ledger.enqueue(kind=tasks.IMPORT_ITEMS, params={"upload": "../../secret", "file_name": "x", "options": {}})
    run_job(job.pk)
    assert Job.objects.get().state != "done"
    assert secret.exists()


def test_a_running_job_shows_how_far_it_is(page, admin):
    job = ledger.enqueue(kind=tasks.IMPORT_ITEMS, params={"file_name": EVIL}, by_id=admin.pk)
    claim = ledger.claim(job.pk, worker="w")
    ledger.heartbeat(claim, n_done=30, n_total=120, message="Writing")
    shown = text_of(page("job_fragment", job.public_id))
    assert "Writing" in shown and "30 / 120" in shown and 'value="25"' in shown
    assert "<html" not in shown and "<script>alert" not in shown


def test_htmx_is_allowed_on_the_page_that_polls_and_nothing_inline(page, things):
    answer = page("job_detail", things["job_detail"])
    policy = answer.headers["Content-Security-Policy"]
    assert "trusted-types" not in policy and "script-src 'self'" in policy
    assert "trusted-types" in page("dataset_list").headers["Content-Security-Policy"]
    assert "allowEval&quot;: false" in text_of(answer) or '"allowEval": false' in text_of(answer)
    assert " style=" not in text_of(answer) and "onclick" not in text_of(answer)


def test_the_list_of_jobs_asks_once_for_everybody(page, admin, django_assert_max_num_queries):
    for _ in range(20):
        ledger.enqueue(kind=tasks.IMPORT_ITEMS, params={"file_name": "f"}, by_id=admin.pk)
    with django_assert_max_num_queries(8):
        shown = text_of(page("job_list"))
    assert shown.count('<th scope="row">') == 20


# --- Datasets -------------------------------------------------------------------------------------------


def test_a_dataset_shows_its_topics_answers_and_first_items(page):
    dataset = factories.make_dataset("d", name=EVIL, source=EVIL, n_items=8)
    for topic, label, n in [("family", "家庭", 4), ("", EVIL, 3), ("", "", 1)]:
        for _ in range(n):
            factories.make_item(dataset, topic=topic, topic_label=label, turns=[{"role": "client", "text": EVIL}])
    factories.make_response(Item.objects.first(), factories.make_system("s", name=EVIL))
    shown = text_of(page("dataset_detail", dataset.public_id))
    assert "<script>alert" not in shown and shown.count("&lt;script&gt;alert") >= 8
    shares = selectors_library.topic_shares(dataset)
    assert [(share.name, share.n, share.percent) for share in shares] == [
        ("Family", 4, 50.0),
        (EVIL, 3, 37.5),
        ("no topic", 1, 12.5),
    ]
    assert "<script>alert" not in text_of(page("dataset_list"))


def test_an_import_can_be_looked_at_later(send, page):
    send("import_new", form(sample=1, stratify="on"))
    run_job(Job.objects.get().pk)
    imported = ImportRecord.objects.get()
    shown = text_of(page("import_detail", imported.public_id))
    assert imported.file_sha256 in shown and "Dialogues drawn" in shown and "utf-8" in shown


# --- Systems --------------------------------------------------------------------------------------------


def test_presets_are_one_press_away(send, page):
    assert "Add SoulChat" in text_of(page("system_list"))
    send("system_new", {"preset": "soulchat"})
    send("system_new", {"preset": "human-reference"})
    assert set(System.objects.values_list("slug", "kind")) == {("soulchat", "stored"), ("human-reference", "reference")}
    shown = text_of(page("system_list"))
    assert "Add SoulChat" not in shown and "Add Human reference" not in shown and "Add MeChat" in shown
    assert send("system_new", {"preset": "nothing"}).status_code == 404


def test_a_system_is_registered_and_changed(send, page):
    aliases = f"小暖\n\n WarmBot \n{EVIL}"
    assert send("system_new", {"slug": "warm", "name": EVIL, "aliases": aliases}).status_code == 302
    system = System.objects.get()
    assert system.aliases == ["小暖", "WarmBot", EVIL]
    for shown in (page("system_list"), page("system_detail", system.public_id)):
        assert "<script>alert" not in text_of(shown)
    send("system_detail", {"name": "Warm", "aliases": "a"}, system.public_id)
    system.refresh_from_db()
    assert (system.name, system.aliases, system.slug) == ("Warm", ["a"], "warm")


def test_a_system_that_cannot_be_is_said_in_the_form(send):
    factories.make_system("warm", name="Warm")
    for data in ({"slug": "warm", "name": "Other"}, {"slug": "other", "name": "Warm"}, {"slug": "a b", "name": "x"}):
        answer = send("system_new", data)
        assert answer.status_code == 422 and answer.context["form"].errors
    assert System.objects.count() == 1
