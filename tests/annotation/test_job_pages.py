"""The pages on work in the background: what runs, where, how fast, what went wrong, and the two buttons."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from jobs import ledger
from jobs.errors import Crashed
from jobs.ledger import Claim
from jobs.logs import log_path
from jobs.models import Job

EVIL = "<script>alert(1)</script>"

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def logs(settings, tmp_path):
    settings.JOB_LOG_DIR = tmp_path


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Stands still, so that a slow machine changes no speed."""
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now)


@pytest.fixture
def client(admin, as_user):
    return as_user(admin)


@pytest.fixture
def show(client):
    def get(name: str = "job_list", job: Job | None = None, **query: str) -> str:
        url = reverse(name, args=[job.public_id] if job else [])
        answer = client.get(url, query)
        assert answer.status_code == 200
        return answer.content.decode()

    return get


def enqueue(kind: str = "annotation.import_items", **fields) -> Job:
    return ledger.enqueue(kind=kind, params={"file_name": "data.jsonl"}, **fields)


def start(job: Job) -> Claim:
    found = ledger.claim(job.pk, worker="gpu-box:4711")
    assert found
    return found


def counting(job: Job, *, seconds: float, n_from: int, n_done: int, n_total: int) -> None:
    """As a job looks that has been counting for a while."""
    ledger.heartbeat(start(job), n_done=n_from, n_total=n_total, message="Writing", counts_anew=True)
    Job.objects.filter(pk=job.pk).update(n_done=n_done, counted_since=timezone.now() - timedelta(seconds=seconds))


def test_a_running_job_says_where_since_when_how_far_and_how_fast(show):
    job = enqueue(queue="gpu.0")
    counting(job, seconds=100, n_from=6000, n_done=6500, n_total=10_000)
    for shown in (show(), show("job_detail", job)):
        assert all(text in shown for text in ("gpu-box:4711", "gpu.0", "6500 / 10000", 'value="65"', "Writing"))
        assert "5.0 per second" in shown and "12 min" in shown  # 3,500 items at 5 a second
        assert reverse("job_cancel", args=[job.public_id]) in shown
    assert "Last sign of life" in show("job_detail", job)


@pytest.mark.parametrize(
    ("seconds", "n_done", "speed", "left"),
    [
        (10, 9000, "900 per second", "less than a minute"),
        (600, 100, "10.0 per minute", "16 h 30 min"),
        (36_000, 5, "0.5 per hour", "19990 h 0 min"),
    ],
)
def test_speed_and_time_left_are_said_in_fitting_units(show, seconds, n_done, speed, left):
    counting(enqueue(), seconds=seconds, n_from=0, n_done=n_done, n_total=10_000)
    assert speed in show() and left in show()


def test_nothing_is_guessed(show):
    start(enqueue())
    shown = show()
    assert "per second" not in shown and "value=" not in shown.split("<table")[1].split("csrf")[0]


def test_what_runs_comes_first_then_what_waits(show):
    names = ["waits", "runs", "over"]
    jobs = [ledger.enqueue(kind="test.kind", params={"file_name": name}) for name in names]
    ledger.finish(start(jobs[2]), result={})
    start(jobs[1])
    shown = show().split("<table")[1]
    assert sorted(names, key=lambda name: shown.index(f">{name}<")) == ["runs", "waits", "over"]


def test_the_list_is_narrowed_by_state_and_kind(show):
    enqueue("test.one")
    start(enqueue("test.two"))
    table = lambda **query: show(**query).partition('id="jobs"')[2]  # noqa: E731
    assert "test.one" in table(state="queued") and "test.two" not in table(state="queued")
    assert "test.two" in table(kind="test.two") and "test.one" not in table(kind="test.two")
    assert "No job is like that." in table(state="failed")
    assert "test.one" in table(state="nonsense", kind=EVIL) and "<script>alert" not in show(kind=EVIL)


def test_the_list_asks_again_while_something_is_alive_with_the_same_question(show):
    job = enqueue("test.one")
    shown = show(state="queued")
    assert 'hx-get="/jobs/?state=queued"' in shown and "htmx" in shown.partition("</main>")[2]
    ledger.request_cancel(job.pk)
    shown = show()
    assert "hx-get" not in shown and "htmx" not in shown.partition("</main>")[2]


def test_thousands_of_old_jobs_are_paged_and_asked_of_the_database_in_a_few_queries(
    client, show, admin, django_assert_max_num_queries
):
    Job.objects.bulk_create(
        Job(kind="test.old", state="failed", error_class="DiskFull", finished_at=timezone.now(), created_by=admin)
        for _ in range(5000)
    )
    running = enqueue("test.new")
    start(running)
    with django_assert_max_num_queries(8):  # session, person, kinds, count, jobs; the same for any number of jobs
        shown = show()
    Job.objects.filter(kind="test.old").update(kind="models_runtime.answer")
    with django_assert_max_num_queries(8 + 50):  # of each that is shown, whether it can be tried again
        show()
    Job.objects.filter(kind="models_runtime.answer").update(kind="test.old")
    assert shown.count("<tr>") == 1 + 50 and "1 / 101" in shown and 'href="?page=2"' in shown
    assert str(running.public_id) in shown and str(running.public_id) not in show(page="2")
    assert "?kind=test.old&amp;page=99" in show(kind="test.old", page="999")


def test_without_jobs_there_is_a_sentence(show):
    assert "Nothing has run in the background yet." in show()


def test_a_failed_job_says_why_and_can_be_tried_again(client, show):
    job = enqueue("test.kind", max_attempts=1)
    ledger.fail(start(job), error=Crashed(EVIL, error_class="WrongWeights"))
    assert "It did not work." in show()
    shown = show("job_detail", job)
    assert "WrongWeights" in shown and "&lt;script&gt;alert" in shown and "<script>alert" not in shown
    assert reverse("job_retry", args=[job.public_id]) not in shown  # nobody knows this kind any more


def test_a_job_that_waits_for_its_next_attempt_says_when(show, settings):
    settings.JOB_RETRY_SECONDS = 3600
    job = enqueue("test.kind")
    ledger.fail(start(job), error=Crashed("exit code 3"))
    job.refresh_from_db()
    shown = show("job_detail", job)
    assert f"at {timezone.localtime(job.not_before):%H:%M:%S} at the earliest" in shown
    assert "No worker has taken this job" not in shown


def test_the_newest_lines_of_the_log_are_shown_as_text(show):
    job = enqueue()
    assert 'id="log"' not in show("job_detail", job)
    log_path(job.public_id).write_text(f"first\n{'x' * 40_000}\nlast {EVIL}\n")
    shown = show("job_detail", job)
    assert "last &lt;script&gt;" in shown and "first" not in shown


def test_pressing_twice_does_no_harm(client):
    job = enqueue("test.kind")
    url = reverse("job_cancel", args=[job.public_id])
    assert [client.post(url).status_code for _ in range(2)] == [302, 302]
    assert Job.objects.get().state == "cancelled"


@pytest.mark.parametrize("kind", ["annotation.import_items", "models_runtime.answer", "nobody.knows"])
def test_what_went_wrong_is_said_in_the_readers_language_above_the_errors_own_words(client, show, kind):
    client.cookies["django_language"] = "zh-hans"
    job = enqueue(kind, max_attempts=2)
    for _state in ("queued", "failed"):
        Job.objects.update(not_before=None)
        ledger.fail(start(job), error=Crashed("No space left on device", error_class="DiskFull"))
        assert "磁盘已满" in show()
        shown = show("job_detail", job)
        assert shown.index("磁盘已满") < shown.index("DiskFull") < shown.index("No space left on device")


def test_the_pages_speak_chinese(client, show):
    client.cookies["django_language"] = "zh-hans"
    counting(enqueue(), seconds=100, n_from=0, n_done=500, n_total=10_000)
    assert "每秒 5.0 条" in show() and "32 分钟" in show()
