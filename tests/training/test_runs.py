"""Runs: launched once, refused with a reason, trained by a real child, stopped, gone on with, registered once."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from django.utils import timezone

from annotation.models import System
from jobs import ledger
from jobs.models import Job
from jobs.registry import can_retry, sentence_of
from jobs.supervisor import run_child
from jobs.tasks import conclude, run_job
from models_runtime.models import Runtime, RuntimeVersion
from models_runtime.services.runtimes import FolderRefused, folder_of
from tests import factories
from tests.training.corpora import TALK
from tests.training.runs import CONFIG, launch, make_corpus, make_home, run
from training.corpus.errors import CorpusError
from training.explanations import EXPLANATIONS
from training.finetune import worker
from training.finetune.config import SOULCHAT_PAPER
from training.finetune.errors import FinetuneError
from training.finetune.protocol import FinetuneJob
from training.models import TrainingRun
from training.selectors import runs as selectors
from training.services import runs as services
from training.services.runs import RunRefused, register_run, resume_run, stop_run

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def folders(settings, home, tmp_path, monkeypatch):
    settings.MODEL_DIRS = [home]
    settings.RUN_DIR = tmp_path / "runs"
    settings.WEIGHTS_DIGESTS = tmp_path / "digests.json"
    settings.JOB_LOG_DIR = tmp_path / "logs"
    settings.JOB_RETRY_SECONDS = 0
    settings.GPU_QUEUES = ["gpu.0", "gpu.all"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def corpus(home):
    return make_corpus(home)


# --- Launching ------------------------------------------------------------------------------------------


def test_the_same_launch_twice_is_one_run_and_two_runs_have_two_folders(corpus):
    first = launch(corpus)
    again = launch(corpus, name="another name", public_id=first.public_id)
    other = launch(corpus, name="second run")
    assert again == first and TrainingRun.objects.count() == Job.objects.count() == 2
    assert first.folder != other.folder and first.folder.parent == other.folder.parent
    assert first.content_hash == corpus.content_hash and first.cost["hardware"]["name"] == "the CPU"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"base": "other"}, "was prepared for another model"),
        ({"base": "nowhere"}, "There is no folder"),
        ({"base": "/etc"}, "is not below"),
        ({"memory_gib": 0.2}, "needs about"),
        ({"device": "cuda"}, "how much memory one GPU has"),
        ({"device": "cuda", "memory_gib": 80, "processes": 2}, "a worker that sees all these GPUs"),
        ({"config": replace(CONFIG, max_target_tokens=20)}, "a target of more than 20 tokens"),
    ],
)
def test_what_cannot_work_is_refused_with_a_reason_before_anything_is_made(corpus, changed, reason):
    with pytest.raises((RunRefused, FolderRefused), match=reason):
        launch(corpus, **changed)
    assert not TrainingRun.objects.exists() and not Job.objects.exists()


def test_a_disk_without_room_for_the_checkpoints_is_refused(corpus, monkeypatch):
    monkeypatch.setattr(services, "free_bytes", lambda folder: 1000)
    with pytest.raises(RunRefused, match=r"The disk is full.*lower keep_checkpoints"):
        launch(corpus)


def test_names_are_taken_once(corpus):
    launch(corpus)
    with pytest.raises(RunRefused, match="a run of this name"):
        launch(corpus)
    factories.make_system("taken", name="Taken")
    with pytest.raises(RunRefused, match="a system of this name"):
        launch(corpus, name="second", system_name="Taken")


def test_a_corpus_that_was_made_anew_in_its_place_is_refused(home):
    with pytest.raises(RunRefused, match="not as it was prepared"):
        launch(make_corpus(home, content_hash="0" * 64))


def test_hours_are_told_for_a_gpu_that_is_known(corpus):
    wanted = services.Launch(
        name="paper",
        corpus=corpus,
        config=SOULCHAT_PAPER,
        device="cuda",
        processes=8,
        gpu="A100",
        memory_gib=80,
        queue="gpu.all",
    )
    seen = services.foresee(wanted)
    assert seen.cost.hours is not None and seen.cost.hours > 0
    assert services.foresee(replace(wanted, gpu="")).cost.hours is None


def test_learning_what_systems_are_judged_by_takes_a_word(corpus):
    turns = [
        {"role": role, "text": f"{text}（{number}）"}
        for number in (0, 1)
        for role, text in zip(("client", "counsellor") * 3, TALK, strict=True)
    ]
    for number in (0, 1):  # one of the two dialogues may be in the test part
        mine = turns[6 * number : 6 * number + 6]
        factories.make_item(factories.make_dataset(f"judged-{number}"), "i", turns=mine[:1], reference=mine[1]["text"])
    with pytest.raises(RunRefused, match="learns from items"):
        launch(corpus)
    found = launch(corpus, accepts_leaks=True)
    assert [item for _dataset, item in found.leaks] and all(item == "i" for _dataset, item in found.leaks)


# --- Training -------------------------------------------------------------------------------------------


@pytest.mark.slow  # two children that load torch: about 20 s
def test_stopped_or_killed_it_goes_on_and_ends_as_a_system_that_answers_with_its_weights(corpus, monkeypatch, home):
    n_steps = 150  # a second or more, so that the wish to stop comes in the middle
    first = launch(corpus, config=replace(CONFIG, steps=n_steps, checkpoint_every=100), system_name="Tuned toy")

    def stop_when_ready(running, argv, *, on_message, **options):
        def hear(message):
            on_message(message)
            if message["type"] == "ready":
                stop_run(run=first, by=None)

        return run_child(running, argv, on_message=hear, **options)

    def killed(running, argv, **options):
        """A child in its place that somebody kills; how a real one survives it: test_finetune_worker."""
        dies = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
        return run_child(running, [sys.executable, "-I", "-S", "-c", dies], **options)

    with monkeypatch.context() as patched:
        patched.setattr(services, "run_child", stop_when_ready)
        job = run(first)
    first.refresh_from_db()
    assert (job.state, first.intent, first.system) == ("cancelled", "stop", None)
    page = selectors.run_page(first)
    assert page.state == "Stopped" and page.can_resume and not page.can_stop and page.checkpoints
    stopped_at = page.checkpoints[0].step
    assert 0 < stopped_at < n_steps and not can_retry(job)

    resume_run(run=first, by=None)
    with pytest.raises(RunRefused, match="trains already"):
        resume_run(run=first, by=None)
    with monkeypatch.context() as patched:
        patched.setattr(services, "run_child", killed)
        job = run(first)
    assert (job.state, job.error_class, job.attempt) == ("queued", "Killed", 1)
    first.refresh_from_db()
    assert selectors.run_page(first).failed_job == job

    # The next worker dies without a word; the sweep finds out, and another one goes on.
    assert ledger.claim(job.pk, worker="gone") is not None
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now())
    assert ledger.sweep().requeued == [job.pk]
    job = run(first)
    assert (job.state, job.error, job.attempt) == ("done", "", 3)
    first.refresh_from_db()
    assert first.facts["device"] == "cpu" and first.facts["memory_bytes"] > 0 and first.facts["devices"] == 1
    assert first.facts["step"] == stopped_at and (job.n_done, job.n_total) == (n_steps, n_steps)
    assert job.result == {"run": str(first.public_id), "system": "tuned-toy"}
    settings = Runtime.objects.get(system=first.system).value
    assert folder_of(settings.weights) == (first.folder / "export").resolve() and settings.adapter == ""
    assert (settings.family, settings.dtype, settings.device) == ("chatglm", "float32", "cpu")
    assert settings.template.to_json() == corpus.card["template"]
    assert (settings.decoding.max_input_tokens, settings.decoding.max_new_tokens) == (400, 100)

    # A worker that dies before it has said so: the job comes again, and nothing is done twice.
    Job.objects.filter(pk=job.pk).update(state="queued", attempt=1)
    assert run(first).state == "done" and System.objects.count() == 1
    assert register_run(first, first.card) == first.system and System.objects.count() == 1
    with pytest.raises(RunRefused, match="has finished"):
        resume_run(run=first, by=None)

    page = selectors.run_page(first)
    numbers = {number.name: number.text for number in page.numbers}
    assert numbers["Step"] == "150" and numbers["MFU"] == "unknown peak" and page.scores["bleu_1"]["signature"]
    titles = [curve.title for curve in selectors.curves(first.folder)]
    assert titles == ["Loss", "Learning rate", "Throughput", "Gradient norm"]

    # The line from a response back to the files: by the digest that a worker finds when it loads the weights.
    from models_runtime.engine.loading import weights_digest

    spec = {"weights_digest": weights_digest(first.folder / "export"), "adapter_digest": None}
    RuntimeVersion.objects.create(system=first.system, number=1, digest="d", spec=spec)
    RuntimeVersion.objects.create(system=first.system, number=2, digest="e", spec={**spec, "weights_digest": "other"})
    lineage = selectors.lineage_of(first.system)
    assert [link.is_of_run for link in lineage.links] == [False, True]  # the newest version first
    assert lineage.digest == spec["weights_digest"] and first.card["fixed"]["corpus"] == corpus.content_hash
    assert [source["sha256"] for source in lineage.sources] == [source["sha256"] for source in corpus.card["sources"]]


def test_an_adapter_ends_as_a_system_with_its_base(corpus, monkeypatch):
    monkeypatch.setattr(services, "run_child", in_this_process)
    first = launch(corpus, config=replace(CONFIG, method="lora", n_generated=0))
    job = run(first)
    assert (job.state, job.error) == ("done", "")
    first.refresh_from_db()
    settings = Runtime.objects.get(system=first.system).value
    assert settings.weights == first.base and folder_of(settings.adapter) == (first.folder / "export").resolve()
    assert first.card["adapter_digest"] and first.card["weights_digest"] == first.card["fixed"]["base"]


def test_a_loss_that_is_no_number_ends_the_run_and_says_so(corpus, monkeypatch):
    monkeypatch.setattr(services, "run_child", in_this_process)
    first = launch(corpus, config=replace(CONFIG, learning_rate=1e30, clip_norm=0.0, checkpoint_every=1))
    job = run(first)
    assert (job.state, job.error_class, job.attempt) == ("failed", "LossIsNaN", 1)  # trying again would be in vain
    assert "NaN" in sentence_of(job) and "is no number" in job.error
    assert selectors.run_page(first).checkpoints and not System.objects.exists()


def in_this_process(running, argv, *, on_message, **options):
    """What a child would do, without the seconds that it takes to load torch; its last words come from a real one."""
    job = FinetuneJob.from_json(json.loads(Path(argv[-1]).read_text()))
    try:
        worker.run(job, on_message, lambda: False)
    except Exception as error:
        code, error_class, is_final = worker.failure_of(error)
        words = {"type": "failed", "error_class": error_class, "error": str(error), "is_final": is_final}
        say = f"import sys; print({json.dumps(words)!r}); sys.exit({code})"
        run_child(running, [sys.executable, "-I", "-S", "-c", say], on_message=on_message, **options)


# --- Without a child ------------------------------------------------------------------------------------


def test_a_corpus_that_changed_between_stop_and_resume_is_refused(corpus, home, tmp_path):
    first = launch(corpus)
    conclude(stop_run(run=first, by=None).pk)
    type(corpus).objects.filter(pk=corpus.pk).update(path=str(tmp_path / "gone"))
    with pytest.raises(RunRefused, match="not as it was prepared"):
        resume_run(run=first, by=None)
    type(corpus).objects.filter(pk=corpus.pk).update(path=corpus.path)
    TrainingRun.objects.filter(pk=first.pk).update(content_hash="0" * 64)
    with pytest.raises(RunRefused, match="not those the run began with"):
        resume_run(run=first, by=None)
    TrainingRun.objects.filter(pk=first.pk).update(content_hash=corpus.content_hash, base=str(home / "other"))
    with pytest.raises(RunRefused, match="was prepared for another model"):
        resume_run(run=first, by=None)
    assert Job.objects.count() == 1


def test_a_job_cancelled_on_its_own_page_leaves_a_stopped_run(corpus):
    first = launch(corpus)
    assert ledger.request_cancel(first.job_id)
    conclude(first.job_id)
    first.refresh_from_db()
    assert first.intent == "stop" and selectors.state_of(first) == ("Stopped", "warn")
    with pytest.raises(RunRefused, match="nothing to stop"):
        stop_run(run=first, by=None)


def test_an_older_job_of_a_run_does_nothing(corpus):
    first = launch(corpus)
    old = first.job_id
    conclude(stop_run(run=first, by=None).pk)
    resume_run(run=first, by=None)
    ledger.retry(old)
    run_job(old)
    assert Job.objects.get(pk=old).error == "Another job does this now."


def test_a_name_that_was_taken_meanwhile_does_not_lose_the_run(corpus):
    first = launch(corpus)
    factories.make_system("first-run", name="first run")
    system = register_run(first, {"family": "chatglm"})
    Job.objects.filter(pk=first.job_id).update(state="cancelled")
    first = TrainingRun.objects.get(pk=first.pk)
    assert selectors.state_of(first) == ("Done", "good")  # a wish to stop that came too late
    assert system.name.startswith("first run (") and system.slug.startswith("first-run-")


def test_every_error_has_a_sentence():
    def below(cls):
        return {cls} | {one for child in cls.__subclasses__() for one in below(child)}

    names = {getattr(cls, "error_class", cls.__name__) for cls in below(FinetuneError)}
    names |= {cls.__name__ for cls in below(CorpusError)} - {"SourceRefused", "FolderTaken", "BadRules", "Stopped"}
    assert names <= EXPLANATIONS.keys() | {"DiskFull"}


# --- Reading a long run ---------------------------------------------------------------------------------


def test_thirty_thousand_steps_are_drawn_with_few_points_and_every_peak(tmp_path):
    n = 30_000
    names = "step,loss,learning_rate,gradient_norm,tokens_per_second,labels_per_second,padding_per_second"
    rows = [f"{i},{9.5 if i == 12_345 else 1.0},5e-05,0.5,100.0,10.0,0.0" for i in range(1, n + 1)]
    (tmp_path / "steps.csv").write_text("\n".join([names, *rows, "30001,1.0,5e"]))  # a row under way
    (tmp_path / "evaluations.csv").write_text("step,loss,samples,labels\n500,2.0,4,10\n1000,,4,10\n")
    curves = selectors.curves(tmp_path)
    for curve in curves:
        counts = [sum(row[0] == name for row in curve.chart.rows) for name in {row[0] for row in curve.chart.rows}]
        assert max(counts) <= 4 * (selectors.BUCKETS + 1)
    assert 9.5 in [row[2] for row in curves[0].chart.rows]
    assert ("held out", 500.0, 2.0) in curves[0].chart.rows
    assert selectors.newest_step(tmp_path)["step"] == str(n)
    assert selectors.newest_step(tmp_path / "nowhere") is None and selectors.curves(tmp_path / "nowhere") == []


def test_checkpoints_are_listed_when_they_are_complete(tmp_path):
    for step, is_complete in ((2, True), (4, False)):
        folder = tmp_path / "checkpoints" / f"step-{step:08}"
        folder.mkdir(parents=True)
        if is_complete:
            told = {"step": step, "state": {}, "files": {"a": {"bytes": 2**30, "sha256": "0"}}}
            (folder / "complete.json").write_text(json.dumps(told))
    assert [(one.step, one.gib) for one in selectors.saved(tmp_path)] == [(2, 1.0)]
