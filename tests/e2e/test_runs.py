"""A run in a browser: asked for, estimated, launched once, watched, stopped, gone on with; axe on every page."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import follow
from tests.e2e.test_pages import check, said
from tests.e2e.test_people import admin_link

SETUP = """
import django; django.setup()
from pathlib import Path
from django.conf import settings
from jobs import ledger; from jobs.models import Job
from training.models import TrainingRun
from tests.training.runs import make_corpus, make_home
"""
NOW = """
run = TrainingRun.objects.get()
run.folder.mkdir(parents=True, exist_ok=True)
names = "step,loss,learning_rate,gradient_norm,loss_scale,n_skipped,samples_per_second,tokens_per_second,"
names += "labels_per_second,padding_per_second,mfu,peak_memory_bytes,remaining_seconds\\n"
rows = [f"{n},{3 / n},{n * 1e-5},{2 / n},1,0,3.5,900,200,0,,1e9,{60 * (9 - n)}\\n" for n in range(1, 6)]
(run.folder / "steps.csv").write_text(names + "".join(rows))
"""


def python(site, code: str) -> str:
    return site.python("-c", SETUP + code).strip()


@pytest.fixture
def corpus(site) -> str:
    """A toy model and a corpus that was prepared for it; the corpus's name."""
    return python(site, "print(make_corpus(make_home(Path(settings.MODEL_DIRS[0])), name='E2E talks').name)")


def test_from_the_questions_to_a_run_that_is_stopped_and_goes_on(site, new_context, enter, corpus):
    page = enter(new_context(), admin_link(site))
    page.goto(f"{site.url}/training/")
    wrong = check(page)
    follow(page.get_by_role("link", name="Train a model …"))
    page.get_by_label("Name of the run").fill("E2E run")
    page.get_by_label("Corpus", exact=True).select_option(label=corpus)
    page.get_by_label("Steps optional", exact=True).fill("8")
    page.get_by_label("Steps of the warm-up").fill("2")
    page.get_by_text("Rarer settings").click()
    wrong += check(page)
    follow(page.get_by_role("button", name="See what it will take"))
    expect(page.get_by_text("steps = 8")).to_be_visible()
    wrong += check(page)
    page.get_by_role("button", name="Launch").dblclick()
    expect(page.get_by_role("heading", name="E2E run")).to_be_visible()
    run = page.url
    expect(page.get_by_text("Waiting")).to_be_visible()

    python(
        site,
        "job = TrainingRun.objects.get().job\n"
        "claim = ledger.claim(job.pk, worker='gpu-box:1')\n"
        "ledger.heartbeat(claim, n_done=5, n_total=8, message='Training', counts_anew=True)\n" + NOW,
    )
    expect(page.get_by_text("5 / 8")).to_be_visible()  # nobody reloaded
    expect(page.get_by_text("unknown peak")).to_be_visible()
    page.reload()
    expect(page.locator("#curves svg")).to_have_count(4)
    wrong += check(page)
    page.get_by_role("button", name="Stop after this step").click()
    expect(page.get_by_text("Stopping")).to_be_visible()
    python(site, "job = TrainingRun.objects.get().job\nledger.cancel(ledger.Claim(job.pk, job.token))")
    expect(page.get_by_text("Stopped")).to_be_visible()
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("Waiting")).to_be_visible()

    python(
        site,
        "from training.services.runs import register_run\n"
        "run = TrainingRun.objects.get()\n"
        "card = {'family': 'chatglm', 'weights_digest': 'ab' * 32, 'adapter_digest': None, 'fixed': {'base': '0'}}\n"
        "scores = {'bleu_1': {'value': 12.5, 'signature': 'bleu_1|v1'}}\n"
        "register_run(run, card | {'held_out_answers': {'n': 4, 'scores': scores}})\n"
        "claim = ledger.claim(run.job.pk, worker='gpu-box:1')\n"
        "ledger.finish(claim, result={})",
    )
    expect(page.get_by_role("heading", name="Answers to held-out samples")).to_be_visible()  # the page came anew
    wrong += check(page)
    for gone in ("remove", "checkpoints/remove"):
        page.goto(f"{run}{gone}/")
        wrong += check(page)
    page.goto(run)
    follow(page.get_by_role("link", name="E2E run"))
    expect(page.get_by_role("heading", name="Where it comes from")).to_be_visible()
    wrong += check(page)
    assert not wrong, said(wrong)
