"""Corpora on the site: a real child prepares one, once; whatever goes wrong, nothing half-made stays."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.core.management import CommandError, call_command

from annotation.models import AuditEvent, Dataset
from annotation.services.uploads import store_upload, upload_path
from jobs import ledger
from jobs.models import Job
from jobs.tasks import conclude, run_job
from models_runtime.services.runtimes import FolderRefused
from models_runtime.toy import make_toy
from tests import factories
from tests.training import rows
from tests.training.corpora import TALK, messages
from training.corpus import worker
from training.corpus.encoding import Encoder
from training.corpus.store import Store, partial_of
from training.models import Corpus, ReviewCase
from training.selectors.corpora import case_view, corpus_page, marked, review_page
from training.services import corpora
from training.services.corpora import UPLOADS, CorpusRefused, Order, launch_corpus
from training.services.removal import remove_corpus
from training.services.review import decide, prepare_again
from training.tasks import corpora as tasks

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def folders(settings, tmp_path_factory, tmp_path, monkeypatch):
    settings.MODEL_DIRS = [tmp_path_factory.getbasetemp()]
    settings.CORPUS_DIRS = [tmp_path / "dialogues"]
    settings.CORPUS_DIR = tmp_path / "corpora"
    settings.BATCH_DIR = tmp_path / "batches"
    settings.JOB_LOG_DIR = tmp_path / "logs"
    settings.MEDIA_ROOT = tmp_path / "uploads"
    settings.JOB_RETRY_SECONDS = 0
    settings.CORPUS_DIRS[0].mkdir()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    return make_toy(tmp_path_factory.mktemp("toy"), [*TALK, "我叫王小明，联系我。", "电话 13812345678。"])


def entries(n: int) -> list[dict]:
    """Dialogues of which one is repeated, one has a phone number, and two tell a name."""
    found = [{"id": i, "topic": "情绪", "messages": messages(*(f"{t}（{i}）" for t in TALK))} for i in range(n)]
    found.append({**found[0], "id": n})
    found.append({"id": n + 1, "topic": "", "messages": messages("电话 13812345678。", "好的。")})
    for number, name in ((2, "王小明"), (3, "李小红")):
        found.append({"id": n + number, "topic": "", "messages": messages(f"我叫{name}，睡不好。", f"嗯，{name}。")})
    return found


def release(folder: Path, found: object = None, name: str = "soul.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(entries(12) if found is None else found, ensure_ascii=False), encoding="utf-8")
    return path


def order(toy: Path, path: Path, **changed) -> Order:
    given = {
        "name": "soul",
        "weights": str(toy),
        "plan": rows.PLAN,
        "sources": [{"name": path.name, "path": str(path)}],
    }
    return Order(**{**given, **changed})


def prepared(found: Order) -> Corpus:
    corpus = launch_corpus(found, by=None)
    run_job(corpus.job_id)
    corpus.refresh_from_db()
    return corpus


def prepare_here(running, argv, *, on_message, **options) -> None:
    """In place of the child, which takes seconds to load torch."""
    worker.run(json.loads(Path(argv[-1]).read_text()), on_message, lambda: False)


def left_on_disk(settings) -> list[str]:
    return sorted(
        path.name for root in (settings.CORPUS_DIR, settings.BATCH_DIR) if root.exists() for path in root.iterdir()
    )


# --- From files to a corpus and on ------------------------------------------------------------------------


@pytest.mark.slow
def test_from_files_to_a_reviewed_corpus(settings, toy, admin, researcher, monkeypatch):
    """Prepared, looked at, reviewed by two people, prepared again: and the datasets here stay out of it."""
    path = release(settings.CORPUS_DIRS[0])
    held = factories.make_item(
        factories.make_dataset(), turns=[{"role": "client", "text": f"{TALK[0]}（5）"}], reference=f"{TALK[1]}（5）"
    )
    corpus = prepared(order(toy, path))
    assert (corpus.job.state, corpus.job.error) == ("done", "")
    assert corpus.is_ready and corpus.job.result == {"content_hash": corpus.card["train"]["content_hash"]}
    assert left_on_disk(settings) == [str(corpus.public_id)]

    page = corpus_page(corpus)
    told = {reason.label: reason for reason in page.reasons}
    assert told["Duplicate dialogues, kept once"].names == ["soul.json: 12"]
    assert told["Dialogues that hold an item of a dataset here"].names == ["soul.json: 5"]
    rules = {reason.label: reason for reason in page.rules}
    assert rules["Phone number (remove)"].names == ["soul.json: 13"]
    assert rules["Name of a person (review)"].n == page.n_open == 2
    assert sum(corpus.statistics["target_tokens"].values()) == corpus.card["train"]["n_samples"]
    assert page.examples and page.examples[0]["target"] in {f"{TALK[5]}（{i}）" for i in range(12)}
    assert not page.is_alive

    # What came in later is found by looking again; the item that was held out is not among it.
    leaky = factories.make_item(
        held.dataset, turns=[{"role": "client", "text": f"{TALK[0]}（{learnt(corpus)}）"}],
        reference=f"{TALK[1]}（{learnt(corpus)}）",
    )  # fmt: skip
    run_job(tasks.leaks_soon(corpus, by_id=None).pk)
    leaks = corpus_page(corpus).leaks
    assert (leaks.n, [item for _dataset, item in leaks.named]) == (1, [leaky.key])

    # The test becomes a dataset; a second time changes nothing.
    for _ in range(2):
        run_job(tasks.import_test_soon(corpus, by=admin).pk)
    made = Dataset.objects.get(slug=f"test-{corpus.public_id.hex[:8]}")
    assert made.n_items == corpus.card["test"]["n_samples"] > 0 and made.imports.count() == 1

    # One is kept, one removed; whoever comes second sees the verdict that stands.
    first, second = ReviewCase.objects.filter(corpus=corpus)
    words = [text.replace("王小明", "某某") for _role, text in first.turns]
    assert decide(case=first, verdict="keep", seen="", by=admin, texts=words).is_taken
    assert decide(case=first, verdict="keep", seen="", by=admin, texts=words).is_taken  # a double click
    late = decide(case=first, verdict="remove", seen="", by=researcher)
    assert not late.is_taken and late.case.verdict == "keep" and late.case.decided_by == admin
    assert decide(case=second, verdict="remove", seen="", by=researcher).is_taken
    assert review_page(corpus).shown is None and review_page(corpus).n_decided == 2

    again = prepare_again(corpus=corpus, name="reviewed", by=admin)
    assert prepare_again(corpus=corpus, name="reviewed", by=admin) == again
    monkeypatch.setattr(corpora, "run_child", prepare_here)
    run_job(again.job_id)
    again.refresh_from_db()
    counts = again.card["cleaning"]["counts"]
    assert (counts["n_mended_by_person"], counts["n_removed_by_person"]) == (1, 1)
    assert learns(again, toy, "嗯，某某。") and not learns(again, toy, "嗯，王小明。")
    assert "Kept by a person, in other words" in [reason.label for reason in corpus_page(again).reasons]
    assert again.reviewed == corpus and not again.review_cases.exists()
    assert len(list((settings.MEDIA_ROOT / UPLOADS).iterdir())) == 1  # the verdicts, once
    # One dialogue more was kept, and one is held out now because of the item that came in later.
    assert n_dialogues(again) == n_dialogues(corpus)
    assert again.card["counts"]["n_held_out_dialogues"] == 2


def learns(corpus: Corpus, toy: Path, reply: str) -> bool:
    """Whether this is a target of one of its parts."""
    wanted = Encoder.load(toy).target(reply)
    stores = [Store(corpus.folder / part, check="sizes") for part in ("train", "test")]
    return any(target.tolist() == wanted for store in stores for _context, target in store)


def n_dialogues(corpus: Corpus) -> int:
    return sum(corpus.card[part]["n_dialogues"] for part in ("train", "test"))


def learnt(corpus: Corpus) -> int:
    """The number of a dialogue that the corpus learns from."""
    return int(corpus_page(corpus).examples[0]["turns"][0][1].rpartition("（")[2].rstrip("）"))


@pytest.mark.slow
def test_a_broken_file_is_listed_place_by_place_and_leaves_nothing(settings, toy):
    broken = [*entries(3), {"id": "x", "messages": [{"role": "nobody", "content": "?"}]}]
    path = release(settings.CORPUS_DIRS[0], broken, name="‮evil <b>.json")
    corpus = prepared(order(toy, path))
    assert (corpus.job.state, corpus.job.error_class) == ("failed", "SourceRefused")
    (problem,) = corpus_page(corpus).job.problems
    assert problem.position == "entry 8" and "�" in problem.file
    assert left_on_disk(settings) == [] and not corpus.is_ready

    # Its name is free again once it is removed.
    with pytest.raises(CorpusRefused, match="already"):
        launch_corpus(order(toy, path), by=None)
    remove_corpus(corpus=corpus, by=None)
    assert launch_corpus(order(toy, path), by=None).pk


@pytest.mark.slow
def test_a_cancelled_one_leaves_nothing_and_can_be_tried_again(settings, toy, monkeypatch):
    path = release(settings.CORPUS_DIRS[0])
    corpus = launch_corpus(order(toy, path), by=None)
    settings.JOB_LEASE_SECONDS = 60

    def cancel_soon(running, argv, **options):
        partial_of(corpus.folder).mkdir(parents=True)  # as a child leaves it that is killed
        Job.objects.filter(pk=corpus.job_id).update(cancel_requested_at=corpus.created_at)
        return run_child(running, argv, **options)

    run_child = corpora.run_child
    monkeypatch.setattr(corpora, "run_child", cancel_soon)
    run_job(corpus.job_id)
    assert Job.objects.get(pk=corpus.job_id).state == "cancelled" and left_on_disk(settings) == []
    monkeypatch.setattr(corpora, "run_child", prepare_here)
    assert ledger.retry(corpus.job_id)
    run_job(corpus.job_id)
    corpus.refresh_from_db()
    assert corpus.is_ready and left_on_disk(settings) == [str(corpus.public_id)]

    # A worker that died between the folder and the row: the next one finds the folder.
    Corpus.objects.update(content_hash="", card={}, statistics={})
    ReviewCase.objects.all().delete()
    Job.objects.filter(pk=corpus.job_id).update(state="failed")
    assert ledger.retry(corpus.job_id)
    monkeypatch.setattr(corpora, "run_child", None)
    run_job(corpus.job_id)
    corpus.refresh_from_db()
    assert corpus.is_ready and corpus.review_cases.count() == 2

    # What was made elsewhere can be taken as it is, if it is what was written.
    call_command("register_corpus", "by hand", str(corpus.folder), "--weights", str(toy))
    taken = Corpus.objects.get(name="by hand")
    assert taken.content_hash == corpus.content_hash and taken.folder == corpus.folder.resolve()
    ids = corpus.folder / "train" / "ids.bin"
    ids.write_bytes(ids.read_bytes()[::-1])
    with pytest.raises(CommandError, match="was changed since it was written"):
        call_command("register_corpus", "changed", str(corpus.folder), "--weights", str(toy))


# --- What cannot be launched ------------------------------------------------------------------------------


def test_it_is_launched_once(settings, toy, admin):
    path = release(settings.CORPUS_DIRS[0])
    one = order(toy, path)
    assert launch_corpus(one, by=admin) == launch_corpus(one, by=admin)
    assert Job.objects.count() == 1 and AuditEvent.objects.filter(action="corpus.launched").count() == 1


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.json", "nowhere.json", "x" * 300, "."])
def test_files_from_elsewhere_are_refused(settings, toy, tmp_path, path):
    (tmp_path / "secret.json").write_text("[]")
    if path == ".":
        (settings.CORPUS_DIRS[0] / "link.json").symlink_to(tmp_path / "secret.json")
        path = "link.json"
    with pytest.raises(CorpusRefused, match="is no file below"):
        launch_corpus(order(toy, Path("a"), sources=[{"name": "a", "path": path}]), by=None)
    assert not Corpus.objects.exists() and not Job.objects.exists()


def test_weights_from_elsewhere_are_refused(settings, toy):
    with pytest.raises(FolderRefused):
        launch_corpus(order(toy, release(settings.CORPUS_DIRS[0]), weights="/etc"), by=None)


def test_an_upload_stays_while_another_corpus_needs_it(toy):
    name = store_upload(ContentFile(b"[]"), folder=UPLOADS)
    source = [{"name": "a.json", "upload": name}]
    both = [launch_corpus(order(toy, Path("a"), name=n, sources=source), by=None) for n in ("one", "two")]
    for corpus, is_left in zip(both, (True, False), strict=True):
        ledger.request_cancel(corpus.job_id)
        conclude(corpus.job_id)
        run_job(remove_corpus(corpus=corpus, by=None).pk)
        assert upload_path(name, folder=UPLOADS).exists() == is_left


def test_uploads_that_nobody_knows_go_after_a_day(settings, toy):
    kept, stray, new = (store_upload(ContentFile(b"[]"), folder=UPLOADS) for _ in range(3))
    launch_corpus(order(toy, Path("a"), sources=[{"name": "a.json", "upload": kept}]), by=None)
    for name in (kept, stray):
        os.utime(upload_path(name, folder=UPLOADS), (0, 0))
    tasks.remove_stray_uploads()
    assert {path.name for path in (settings.MEDIA_ROOT / UPLOADS).iterdir()} == {kept, new}


# --- What the pages read ----------------------------------------------------------------------------------


def test_what_was_found_is_marked_wherever_it_stands():
    pieces = marked("我叫王小明。王小明！", ["王小明", "小明", ""])
    assert [piece.text for piece in pieces if piece.is_found] == ["王小明", "王小明"]
    assert "".join(piece.text for piece in pieces) == "我叫王小明。王小明！"
    case = rows.make_case(rows.ready_corpus(), "我叫王小明。", "嗯，王小明。")
    view = case_view(case)
    assert view.rules == ["Name of a person"]
    assert [any(piece.is_found for piece in text) for _role, text in view.turns] == [True, False]
