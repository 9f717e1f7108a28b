"""Pages of corpora and rewritings: forms, hostile names and files, pages of every state."""

from __future__ import annotations

import json
import uuid
from datetime import date, timedelta
from decimal import Decimal

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from annotation.models import ImportRecord
from jobs.models import Job
from models_runtime.endpoints.budget import Price
from models_runtime.endpoints.values import Sampling
from tests import factories
from tests.at_once import at_once
from tests.training import rows
from training.models import Corpus, ReviewCase, Rewriting
from training.services import corpora, rewriting

pytestmark = pytest.mark.django_db
EVIL = '<script>alert("x")</script>\u202e.json'


@pytest.fixture(autouse=True)
def folders(settings, tmp_path):
    settings.MODEL_DIRS = [tmp_path / "models"]
    settings.CORPUS_DIRS = [tmp_path / "dialogues"]
    settings.CORPUS_DIR = tmp_path / "corpora"
    settings.REWRITING_DIR = tmp_path / "rewritings"
    settings.MEDIA_ROOT = tmp_path / "uploads"
    settings.ALLOWED_ENDPOINTS = ["http://127.0.0.1:9", "https://api.example.org"]
    for folder in (*settings.MODEL_DIRS, *settings.CORPUS_DIRS):
        folder.mkdir()


@pytest.fixture
def client(as_user, admin):
    return as_user(admin)


def uploads(settings, folder: str) -> list[str]:
    path = settings.MEDIA_ROOT / folder
    return sorted(file.name for file in path.iterdir()) if path.is_dir() else []


def file(name: str = EVIL, content: bytes = b"[]") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, content)


def corpus_form(**changed) -> dict:
    given = {"key": str(uuid.uuid4()), "name": "c", "uploads": [file()], "weights": "toy", "rules": ""}
    ticks = {"is_against_database": "on", "is_cleaned": "on"}
    numbers = {"test_share": "0.02", "seed": "1", "context": "1536", "target": "512", "max_broken": "20"}
    return {**given, **ticks, **numbers, **changed}


def test_a_corpus_is_asked_for_once_with_files_of_any_name(client, settings):
    (settings.CORPUS_DIRS[0] / "b.json").write_text("[]")
    form = corpus_form(uploads=[file(), file("../../etc/passwd")], paths="b.json\r\n\r\n")
    answers = [client.post(reverse("corpus_new"), form | {"uploads": [file(), file("../../x")]}) for _ in range(2)]
    corpus = Corpus.objects.get()
    assert {answer.url for answer in answers} == {reverse("corpus_detail", args=[corpus.public_id])}
    assert Job.objects.filter(kind=corpora.PREPARE).count() == 1 and len(uploads(settings, corpora.UPLOADS)) == 2
    assert [source["name"] for source in corpus.sources][1:] == ["x", "b.json"]
    assert corpus.plan["limits"] == {"context": 1536, "target": 512, "cut": None}
    assert corpus.plan["is_against_database"] and corpus.plan["rules"]["near_duplicate"] == 0.8
    page = client.get(answers[0].url).content.decode()
    assert "Waiting" in page and 'hx-trigger="every 3s"' in page
    # The same page with another answer is another corpus, and its name is taken.
    files = {"uploads": [file(), file("../../x")]}
    answer = client.post(reverse("corpus_new"), form | files | {"seed": "2"})
    assert answer.status_code == 422 and "a corpus of this name" in answer.content.decode()
    assert Corpus.objects.count() == 1 and len(uploads(settings, corpora.UPLOADS)) == 2


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"uploads": []}, "Choose at least one file"),
        ({"weights": "/etc"}, "is not below one of the folders"),
        ({"paths": "/etc/passwd"}, "is no file below"),
        ({"rules": '{"strings": {"x": "burn"}}'}, "is no action"),
        ({"rules": "{"}, "This is no JSON"),
        ({"context": "2"}, "greater than or equal to 8"),
        ({"name": "taken"}, "a corpus of this name"),
    ],
)
def test_what_is_wrong_stands_beside_its_field_and_nothing_is_kept(client, settings, changed, told):
    rows.ready_corpus("taken")
    answer = client.post(reverse("corpus_new"), corpus_form(**changed))
    assert answer.status_code == 422 and told in answer.content.decode()
    assert Corpus.objects.count() == 1 and uploads(settings, corpora.UPLOADS) == []


def test_the_page_of_a_corpus_says_what_is_in_it_and_escapes_everything(client):
    corpus = rows.ready_corpus(EVIL, created_by=None)
    rows.make_case(corpus, EVIL, EVIL, found="<script>")
    job = Job.objects.create(
        kind="training.leaks", params={"corpus_id": corpus.pk}, state="done", finished_at=corpus.created_at,
        result={"n_leaks": 1, "leaks": [["d", EVIL]]},
    )  # fmt: skip
    for name in ("corpus_list", "corpus_detail", "corpus_review"):
        page = client.get(reverse(name, args=[] if name == "corpus_list" else [corpus.public_id])).content.decode()
        assert "<script>alert" not in page and "&lt;script&gt;" in page
    assert "<mark>&lt;script&gt;</mark>" in page
    page = client.get(reverse("corpus_detail", args=[corpus.public_id])).content.decode()
    for told in ("Duplicate dialogues", "The string “自杀” (review)", "感受", "The training holds 1 item", rows.HASH):
        assert told in page
    assert page.count("<svg") == 7 and 'hx-trigger="every' not in page and job.is_over
    for key, format, kind in (("topics", "pdf", "application/pdf"), ("words", "svg", "image/svg+xml")):
        answer = client.get(reverse("corpus_figure", args=[corpus.public_id, key, format]))
        assert answer.headers["Content-Type"] == kind
    assert client.get(reverse("corpus_figure", args=[corpus.public_id, "nothing", "svg"])).status_code == 404


def test_a_corpus_that_was_refused_shows_the_places_and_can_be_removed(client):
    problem = {"file": EVIL, "unit": "entry", "number": 3, "field": "messages", "code": "no_turns", "params": {}}
    job = Job.objects.create(
        kind=corpora.PREPARE, state="failed", error_class="SourceRefused", error="e", result={"problems": [problem]}
    )
    corpus = rows.ready_corpus("broken", card={}, statistics={}, content_hash="", job=job)
    page = client.get(reverse("corpus_detail", args=[corpus.public_id])).content.decode()
    assert "entry 3" in page and "There are no turns." in page and "too many of its records are broken" in page
    assert client.get(reverse("corpus_review", args=[corpus.public_id])).status_code == 404
    remove = reverse("corpus_remove", args=[corpus.public_id])
    assert remove in page and client.post(remove).url == client.post(remove).url == reverse("corpus_list")
    assert not Corpus.objects.exists()


def test_reviewing_goes_from_one_to_the_next_and_says_who_was_faster(client, as_user, admin):
    corpus = rows.ready_corpus()
    first, second = rows.make_case(corpus), rows.make_case(corpus)
    decide = reverse("corpus_decide", args=[corpus.public_id, first.name])
    page = client.get(client.post(decide, {"verdict": "keep", "seen": ""}).url).content.decode()
    assert second.name in page and "1 open, 1 kept, 0 removed" in page
    other = as_user(factories.make_user("zoe", role="admin"))
    page = other.post(decide, {"verdict": "remove", "seen": ""}, follow=True).content.decode()
    assert "ada was faster: “Keep” stands" in page
    page = other.get(reverse("corpus_review", args=[corpus.public_id]), {"case": first.name}).content.decode()
    assert 'name="seen" value="keep"' in page and "Leave it open" in page
    other.post(decide, {"verdict": "remove", "seen": "keep"})
    assert ReviewCase.objects.get(pk=first.pk).verdict == "remove"
    assert other.post(decide, {"verdict": "burn", "seen": "remove"}).status_code == 302
    assert ReviewCase.objects.get(pk=first.pk).decided_by.username == "zoe"
    assert client.post(reverse("corpus_decide", args=[uuid.uuid4(), first.name])).status_code == 404


def test_a_name_is_taken_out_and_what_was_read_stays_beside_it(client, as_user):
    corpus = rows.ready_corpus()
    case = rows.make_case(corpus, "我叫王小明，睡不好。", "谢谢你告诉我。")
    decide = reverse("corpus_decide", args=[corpus.public_id, case.name])
    review = reverse("corpus_review", args=[corpus.public_id])
    shown = f"{review}?case={case.name}"
    for texts, told in (
        (["我叫小明。"], "another number of turns"),
        (["我叫小明。", " "], "A turn is empty"),
        (["\0", "好"], "a character"),
    ):
        answer = client.post(decide, {"verdict": "keep", "seen": "", "text": texts}, follow=True)
        assert told in answer.content.decode() and answer.redirect_chain[-1][0] == shown
    words = ["我睡不好。\r\n也吃不下。", "谢谢你告诉我。"]
    for _ in range(2):  # pressed twice
        page = client.post(decide, {"verdict": "keep", "seen": "", "text": words}, follow=True).content.decode()
        assert "was faster" not in page
    assert "0 open, 1 kept, 0 removed; 1 of those kept in other words" in page
    case.refresh_from_db()
    assert (
        case.mended == ["我睡不好。\n也吃不下。", words[1]]
        and case.row["dialogue"]["turns"][0]["content"] == "我叫王小明，睡不好。"
    )
    page = client.get(shown).content.decode()
    assert case.stands in page and "As it was" in page and "王小明" in page and "still find" not in page

    # Somebody who has not seen these words does not undo them; whoever has, may, and is told what the rules find.
    other = as_user(factories.make_user("zoe", role="admin"))
    page = other.post(decide, {"verdict": "keep", "seen": "keep"}, follow=True).content.decode()
    assert "ada was faster" in page
    other.post(decide, {"verdict": "keep", "seen": case.stands, "text": ["我叫李小红。", words[1]]})
    page = other.get(shown).content.decode()
    assert "The rules still find something in it" in page and "Keep as it was" in page
    case.refresh_from_db()
    other.post(decide, {"verdict": "remove", "seen": case.stands})
    case.refresh_from_db()
    assert (case.verdict, case.mended, case.mended_digest) == ("remove", [], "")


def test_the_test_becomes_a_dataset_by_one_button(client, settings):
    corpus = rows.ready_corpus()
    address = reverse("corpus_import_test", args=[corpus.public_id])
    assert client.post(address).url == reverse("corpus_detail", args=[corpus.public_id])
    corpus.folder.mkdir(parents=True)
    row = {"key": "1#1", "dialogue": "1", "turns": [{"role": "client", "content": "你好"}], "reference": "你好。"}
    (corpus.folder / "test.jsonl").write_text(json.dumps(row))
    job = Job.objects.get(public_id=client.post(address).url.rstrip("/").rpartition("/")[2])
    assert job.params["file_name"] == f"{corpus.name}: test.jsonl" and not ImportRecord.objects.exists()


# --- Rewritings -------------------------------------------------------------------------------------------

QUESTIONS = b'{"key": "1", "question": "q", "answer": "a"}\n'


def rewriting_form(**changed) -> dict:
    return {
        "key": str(uuid.uuid4()), "name": "r", "file": file("q.jsonl", QUESTIONS), "system": "near",
        "style": "empathy", "least_rounds": "8", "most_rounds": "20", "most_characters": "500", "n_tries": "3",
        "max_new_tokens": "3000", "seed": "1", **changed,
    }  # fmt: skip


@pytest.fixture
def systems(db):
    return rows.endpoint_system("http://127.0.0.1:9/v1", "near"), rows.endpoint_system("https://api.example.org", "far")


def confirmed(client, form: dict, **changed):
    """The form sent, and the page after it that says what it will take; what its button sends."""
    page = client.post(reverse("rewriting_new"), form)
    assert page.status_code == 200, page.content.decode()
    return {**dict(page.context["hidden"]), "confirmed": "1", "limit": page.context["limit"], **changed}


def test_a_rewriting_is_asked_for_once(client, settings, systems):
    form = rewriting_form(instruction="改写：\r\n{question}\r\n{answer}")
    sent = [confirmed(client, form | {"file": file(EVIL, QUESTIONS)}) for _ in range(2)]  # from two tabs
    assert not Rewriting.objects.exists() and not Job.objects.exists()
    answers = [client.post(reverse("rewriting_new"), one) for one in (*sent, sent[0])]
    made = Rewriting.objects.get()
    assert {answer.url for answer in answers} == {reverse("rewriting_detail", args=[made.public_id])}
    assert made.n_questions == 1 and made.questions["name"] == "script>.json"
    assert made.questions["upload"] in uploads(settings, rewriting.UPLOADS)  # that of the other tab goes after a day
    assert made.style["instruction"] == "改写：\n{question}\n{answer}" and made.style["client"] == "用户"
    page = client.get(answers[0].url).content.decode()
    assert "0 of 1 questions are done with" in page and "<script>alert" not in page and "hx-get" in page


def test_a_file_that_was_no_utf_8_is_marked(client):
    sources = [rows.CARD["sources"][0] | {"encoding": encoding} for encoding in ("utf-8", "gb18030")]
    corpus = rows.ready_corpus(card=rows.CARD | {"sources": sources})
    page = client.get(reverse("corpus_detail", args=[corpus.public_id])).content.decode()
    assert page.count("read as GB18030") == 1


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite lets one writer in at a time")
@pytest.mark.django_db(transaction=True)
def test_of_two_that_ask_at_once_both_come_to_one_corpus_and_one_rewriting(client, settings, systems):
    key, sent = str(uuid.uuid4()), confirmed(client, rewriting_form())
    for asked, page, model in (
        (lambda: corpus_form(key=key), "corpus_new", Corpus),
        (lambda: sent, "rewriting_new", Rewriting),
    ):
        answers = at_once(4, lambda asked=asked, page=page: client.post(reverse(page), asked()))
        made = model.objects.get()
        assert [str(made.public_id) in answer.url for answer in answers] == [True] * 4
    assert Job.objects.count() == 2
    assert [len(uploads(settings, folder)) for folder in (corpora.UPLOADS, rewriting.UPLOADS)] == [1, 1]


def test_texts_leave_the_site_only_if_somebody_says_so(client, systems):
    page = client.get(reverse("rewriting_new"), follow=True).content.decode()
    assert "api.example.org" in page and "127.0.0.1" not in page
    answer = client.post(reverse("rewriting_new"), rewriting_form(system="far"))
    assert answer.status_code == 422 and "answers at api.example.org, outside of this site" in answer.content.decode()
    sent = confirmed(client, rewriting_form(system="far", may_send="on"))
    assert client.post(reverse("rewriting_new"), sent).status_code == 302


def test_what_a_rewriting_will_take_is_told_before_it_starts(client, settings):
    """Of ten questions by an endpoint with a price: by the rule first, then as its latest rewriting went."""
    price = Price("USD", Decimal("1"), Decimal("2"), date(2026, 11, 1))
    system = rows.endpoint_system("http://127.0.0.1:9/v1", "priced", price=price, sampling=Sampling(max_new_tokens=64))
    lines = [{"key": str(n), "question": "我睡不着。", "answer": "慢慢来。"} for n in range(10)]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    asked = {"system": "priced", "style": "plain", "instruction": "{question}{answer}", "max_new_tokens": "2000"}

    def page_of(**changed):
        return client.post(reverse("rewriting_new"), rewriting_form(**asked, file=file("q.jsonl", content), **changed))

    found = page_of(least_rounds="8", most_rounds="12").context["estimate"]
    # 9 characters and 5 for the turn; 10 rounds of 2 turns of 80 tokens; bytes and the places around are the most
    assert (found.n_texts, found.tokens_in, found.tokens_out) == (10, 140, 16_000)
    assert (found.is_measured, found.seconds) == (False, None)
    assert found.money.likely == Decimal("0.03214") and found.money.most == 3 * Decimal("0.04107")
    assert page_of(least_rounds="8", most_rounds="20").context["estimate"].tokens_out == 20_000  # at the limit

    now = timezone.now()
    counted = {"n_done": 2, "counted_from": 0, "counted_since": now - timedelta(seconds=60), "finished_at": now}
    past = rows.make_rewriting(system=system, job=Job.objects.create(kind=rewriting.REWRITE, state="done", **counted))
    past.folder.mkdir(parents=True)
    told = [{"usage": {"prompt_tokens": 9, "completion_tokens": n}} for n in (300, 500)] + [{"usage": None}]
    attempts = "".join(json.dumps({"provenance": one}) + "\n" for one in told)
    (past.folder / "attempts.jsonl").write_text(attempts + '{"prov')
    answer = page_of()
    found = answer.context["estimate"]
    assert (found.n_texts, found.tokens_in, found.tokens_out) == (20, 280, 8_000)  # 4 texts for 2 questions then
    assert found.is_measured and found.seconds == 300
    page = answer.content.decode()
    for said in ("5 min", "≈ 0.0163 USD", "at most 0.1232", "as in its latest rewriting", 'value="0.13"'):
        assert said in page, said

    # The limit is asked for here, and what is wrong with it told here, with the file still there.
    sent = confirmed(client, rewriting_form(**asked, file=file("q.jsonl", content)))
    for limit, why in (("", "costs money"), ("-1", "greater than or equal")):
        answer = client.post(reverse("rewriting_new"), sent | {"limit": limit})
        assert answer.status_code == 422 and why in answer.content.decode()
    assert client.post(reverse("rewriting_new"), sent).status_code == 302
    assert Rewriting.objects.get(name="r").limit == "0.13"


@pytest.mark.parametrize("upload", ["", "0" * 32, "../corpora/x"])
def test_a_file_that_is_not_there_is_asked_for_again(client, systems, upload):
    sent = confirmed(client, rewriting_form())
    answer = client.post(reverse("rewriting_new"), sent | {"upload": upload})
    assert answer.status_code in (400, 422) and not Rewriting.objects.exists()
    assert "Choose the file of questions." in answer.content.decode() or answer.status_code == 400


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"file": file("q.jsonl", QUESTIONS + b'{"key": "1", "question": "", "answer": "a"}\n')}, "line 2"),
        ({"file": file("q.jsonl", b"\x00\x01")}, "no file of questions|cannot be taken"),
        ({"instruction": "{question}"}, "must hold {answer} once"),
        ({"least_rounds": "9", "most_rounds": "8"}, "cannot be met"),
        ({"name": "taken"}, "a rewriting of this name"),
    ],
)
def test_what_is_wrong_with_a_rewriting_is_told_at_once(client, settings, systems, changed, told):
    rows.make_rewriting("taken")
    answer = client.post(reverse("rewriting_new"), rewriting_form(**changed))
    page = answer.content.decode()
    assert answer.status_code == 422 and any(one in page for one in told.split("|"))
    assert Rewriting.objects.count() == 1 and uploads(settings, rewriting.UPLOADS) == []


def test_a_rewriting_that_is_over_gives_its_dialogues_away(client):
    made = rows.make_rewriting()
    address = reverse("rewriting_download", args=[made.public_id])
    assert client.get(address).status_code == 404
    rows.write_dialogues(made)
    assert b"".join(client.get(address).streaming_content).startswith(b'{"key"')
    page = client.get(reverse("rewriting_detail", args=[made.public_id])).content.decode()
    assert "There are too few rounds." in page and "Ask once more" in page and "Prepare a corpus from it" in page
    page = client.get(reverse("corpus_new"), {"rewriting": made.public_id}, follow=True).content.decode()
    assert f'value="{made.public_id}" selected' in page
    running = rows.make_rewriting(job=Job.objects.create(kind=rewriting.REWRITE))
    assert str(running.public_id) not in client.get(reverse("corpus_new"), follow=True).content.decode()
    form = corpus_form(uploads=[], rewriting=str(made.public_id))
    client.post(reverse("corpus_new"), form)
    assert Corpus.objects.get().rewriting == made


def test_pause_and_go_on_by_button(client):
    made = rows.make_rewriting(job=Job.objects.create(kind=rewriting.REWRITE))
    detail = reverse("rewriting_detail", args=[made.public_id])
    assert client.post(reverse("rewriting_pause", args=[made.public_id])).url == detail
    assert "Paused" in client.get(detail).content.decode()
    client.post(reverse("rewriting_resume", args=[made.public_id]), {"limit": "much"})
    assert Job.objects.get(pk=made.job_id).state == "cancelled"
    client.post(reverse("rewriting_resume", args=[made.public_id]))
    assert Job.objects.get(pk=made.job_id).state == "queued"
