"""The pages on runs: what one will take, launching it once, watching it, its numbers as files, its line on a system."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from django.urls import reverse

from jobs import ledger
from jobs.models import Job
from models_runtime.models import RuntimeVersion
from tests import factories
from tests.training.corpora import TALK
from tests.training.runs import CONFIG, launch, make_corpus, make_home
from training.forms.runs import LABELS
from training.models import TrainingRun
from training.services.runs import ANSWERING, register_run

pytestmark = pytest.mark.django_db
STEPS = (
    "step,loss,learning_rate,gradient_norm,loss_scale,n_skipped,samples_per_second,tokens_per_second,"
    "labels_per_second,padding_per_second,mfu,peak_memory_bytes,remaining_seconds\n"
    "1,2.5,0.0,1.5,65536.0,0,3.25,1200.0,300.0,0.0,,1073741824,90.0\n"
    "2,,0.001,,32768.0,1,3.25,1200.0,300.0,0.0,,1073741824,90.0\n"
    "3,2.25,0.001,1.25,32768.0,1,3.25,1234.0,300.0,0.0,,1073741824,180.0\n"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def folders(settings, home, tmp_path):
    settings.MODEL_DIRS = [home]
    settings.RUN_DIR = tmp_path / "runs"
    settings.WEIGHTS_DIGESTS = tmp_path / "digests.json"
    settings.JOB_LOG_DIR = tmp_path / "logs"


@pytest.fixture
def corpus(home):
    return make_corpus(home)


@pytest.fixture
def client(admin, as_user):
    return as_user(admin)


@pytest.fixture
def questions(corpus) -> dict[str, str]:
    return {
        "key": str(uuid.uuid4()),
        "name": "toy run",
        "corpus": str(corpus.public_id),
        "device": "cpu",
        "processes": "1",
        "steps": "8",
        "warmup_steps": "2",
        "batch": "4",
        "groups": "2",
        "precision": "fp32",
        "recompute": "yes",
        "lora_targets": "dense, query_key_value",
    }


def test_every_setting_can_be_said():
    assert set(LABELS) == set(CONFIG.to_json())


def test_what_it_takes_is_shown_and_two_tabs_launch_once(client, questions):
    tabs = [client.get(reverse("run_confirm"), questions) for _ in range(2)]
    told = tabs[0].content.decode()
    assert tabs[0].status_code == 200 and "about 1." in told and "peak of this device is not known" in told
    assert "lora_targets = [&quot;dense&quot;, &quot;query_key_value&quot;]" in told and "recompute = true" in told
    assert not TrainingRun.objects.exists()
    sent = [client.post(reverse("run_confirm"), dict(tab.context["hidden"])).url for tab in tabs]
    run = TrainingRun.objects.get()
    assert set(sent) == {reverse("run_detail", args=[run.public_id])}
    assert run.config["steps"] == 8 and run.config["recompute"] and Job.objects.count() == 1
    assert "toy run" in client.get(reverse("run_list")).content.decode()
    assert "launched already" in client.get(reverse("run_confirm"), questions, follow=True).content.decode()
    # Another tab with another key is another launch, and its name is taken.
    answer = client.post(reverse("run_confirm"), {**questions, "key": str(uuid.uuid4())})
    assert answer.status_code == 422 and "There is a run of this name already." in answer.content.decode()


def test_a_corpus_leads_to_the_questions_about_a_run_on_it(client, corpus):
    address = f"{reverse('run_new')}?corpus={corpus.public_id}"
    assert address in client.get(reverse("corpus_detail", args=[corpus.public_id])).content.decode()
    assert f'value="{corpus.public_id}" selected' in client.get(address, follow=True).content.decode()


def test_a_preset_can_be_changed_in_single_settings(client, questions):
    asked = {name: questions[name] for name in ("key", "name", "corpus", "device", "processes")}
    page = client.get(reverse("run_confirm"), {**asked, "preset": "soulchat-paper", "keep_checkpoints": "1"})
    config = page.context["launch"].config
    assert (config.steps, config.batch, config.precision, config.keep_checkpoints) == (30_000, 80, "fp16", 1)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"groups": "3"}, "3 groups do not divide a batch of 4"),
        ({"memory_gib": "0.2"}, "what would fit"),
        ({"base": "other"}, "was prepared for another model"),
        ({"base": "/etc"}, "is not below"),
        ({"name": ""}, "This field is required"),
    ],
)
def test_what_cannot_work_stays_on_the_form_with_its_reason(client, questions, changed, reason):
    answer = client.get(reverse("run_confirm"), {**questions, **changed})
    assert answer.status_code == 422 and reason in answer.content.decode()


def test_leaks_are_named_and_want_a_tick(client, questions):
    for number in (0, 1):
        first, reply = (f"{text}（{number}）" for text in TALK[:2])
        dataset = factories.make_dataset(f"judged-{number}", name=f"Judged {number}")
        factories.make_item(dataset, "i", turns=[{"role": "client", "text": first}], reference=reply)
    page = client.get(reverse("run_confirm"), questions)
    assert "Judged" in page.content.decode() and "accepts_leaks" in page.content.decode()
    assert client.post(reverse("run_confirm"), questions).status_code == 422 and not TrainingRun.objects.exists()
    answer = client.post(reverse("run_confirm"), {**questions, "accepts_leaks": "on"})
    assert answer.status_code == 302 and "Judged" in client.get(answer.url).content.decode()


def test_a_run_is_watched_stopped_and_gone_on_with(client, corpus):
    run = launch(corpus)
    claim = ledger.claim(run.job_id, worker="gpu-box:1")
    run.folder.mkdir(parents=True)
    (run.folder / "steps.csv").write_text(STEPS)
    ledger.heartbeat(claim, n_done=3, n_total=8, message="Training", counts_anew=True)
    url = reverse("run_detail", args=[run.public_id])
    told = client.get(url).content.decode()
    for number in ("2.2500", "0.001", "1.25", "32768", "1,234", "unknown peak", "1.00 GiB", "3 min", "3 / 8"):
        assert number in told, number
    assert told.count("<svg") == 4 and reverse("run_fragment", args=[run.public_id]) in told
    part = client.get(reverse("run_fragment", args=[run.public_id]))
    assert "<svg" not in part.content.decode() and "HX-Refresh" not in part
    table = client.get(reverse("run_table", args=[run.public_id, "steps"]))
    assert b"".join(table.streaming_content).decode() == STEPS and table["Content-Type"].startswith("text/csv")
    assert client.get(reverse("run_table", args=[run.public_id, "evaluations"])).status_code == 404
    assert client.get(reverse("run_table", args=[run.public_id, "job"])).status_code == 404

    client.post(reverse("run_stop", args=[run.public_id]))
    assert "Stopping" in client.get(url).content.decode()
    ledger.cancel(claim)
    assert client.get(reverse("run_fragment", args=[run.public_id]))["HX-Refresh"] == "true"
    assert "Stopped" in client.get(url).content.decode()
    client.post(reverse("run_resume", args=[run.public_id]))
    run.refresh_from_db()
    assert run.job.state == "queued" and run.job_id != claim.job_id
    answer = client.post(reverse("run_resume", args=[run.public_id]), follow=True)
    assert "trains already" in answer.content.decode()


def test_steps_on_the_axes_are_whole_and_the_formula_is_in_the_readers_language(client, corpus):
    run = launch(corpus)
    run.folder.mkdir(parents=True)
    (run.folder / "steps.csv").write_text(STEPS)
    client.cookies["django_language"] = "zh-hans"
    told = client.get(reverse("run_detail", args=[run.public_id])).content.decode()
    assert "MFU = 样本所需的浮点运算量" in told and "FLOPs the samples" not in told
    loss = told[told.index("<svg") :].partition("</svg>")[0]
    assert ">1</text>" in loss and ">3</text>" in loss and ">1.5</text>" not in loss


def test_a_failed_run_says_why_with_the_end_of_its_log(client, corpus, settings):
    run = launch(corpus)
    job = Job.objects.get(pk=run.job_id)
    Job.objects.filter(pk=job.pk).update(
        state="failed", error_class="LossIsNaN", error="the loss of step 3 is no number"
    )
    settings.JOB_LOG_DIR.mkdir(parents=True)
    (settings.JOB_LOG_DIR / f"{job.public_id}.log").write_text("last words")
    told = client.get(reverse("run_detail", args=[run.public_id])).content.decode()
    assert "no number any more (NaN)" in told and "the loss of step 3" in told and "last words" in told


def test_the_device_that_was_found_is_told_and_one_that_is_too_small_explained(client, corpus):
    run = launch(corpus, device="cuda", gpu="H200", memory_gib=140)
    found = {"type": "hardware", "device": "NVIDIA A100-SXM4-40GB", "memory_bytes": 40 * 2**30, "devices": 4}
    TrainingRun.objects.filter(pk=run.pk).update(facts=found)
    told = {"error_class": "DeviceTooSmall", "error": "NVIDIA A100-SXM4-40GB has 40.0 GiB"}
    Job.objects.filter(pk=run.job_id).update(state="failed", **told)
    page = client.get(reverse("run_detail", args=[run.public_id])).content.decode()
    for said in ("40.0 GiB of memory; 4 are there", "hours were estimated for H200", "less memory than was said"):
        assert said in page, said
    client.cookies["django_language"] = "zh-hans"
    assert "显存" in client.get(reverse("run_detail", args=[run.public_id])).content.decode()


def test_while_held_out_samples_are_answered_the_stage_says_how_many(client, corpus):
    run = launch(corpus)
    claim = ledger.claim(run.job_id, worker="gpu-box:1")
    ledger.heartbeat(claim, n_done=3, n_total=100, message=ANSWERING, counts_anew=True)
    assert (
        "Answering held-out samples 3 / 100" in client.get(reverse("run_detail", args=[run.public_id])).content.decode()
    )
    assert '<td class="num">8 / 8</td>' in client.get(reverse("run_list")).content.decode()


def test_the_systems_page_leads_back_to_the_corpus(client, corpus):
    run = launch(corpus, system_name="Tuned")
    card = {"family": "chatglm", "weights_digest": "77aa", "adapter_digest": None, "fixed": {"base": "88bb"}}
    system = register_run(run, card)
    spec = {"weights_digest": "77aa", "adapter_digest": None}
    version = RuntimeVersion.objects.create(system=system, number=1, digest="v1" * 8, spec=spec)
    item = factories.make_item(factories.make_dataset(), "i")
    factories.make_response(item, system, "好的。")
    system.responses.update(provenance={"spec_digest": version.digest})
    told = client.get(reverse("system_detail", args=[system.public_id])).content.decode()
    for step in ("Version 1", "1 response", "written with the weights", "77aa", "88bb", corpus.content_hash):
        assert step in told, step
    assert reverse("run_detail", args=[run.public_id]) in told
    assert corpus.card["sources"][0]["sha256"] in told
    other = factories.make_system("other")
    assert "Where it comes from" not in client.get(reverse("system_detail", args=[other.public_id])).content.decode()
