"""The pages on work in the background, in a browser: they follow what happens, also after a reload, and stop a job."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import follow
from tests.e2e.test_pages import check, said
from tests.e2e.test_people import admin_link

SETUP = "import django; django.setup(); from jobs import ledger; from jobs.models import Job\n"


def python(site, code: str) -> str:
    return site.python("-c", SETUP + code).strip()


@pytest.fixture
def job(site) -> str:
    """A job that a worker holds, with a failed one and a log beside it; the primary key."""
    return python(
        site,
        "from jobs.logs import log_path\n"
        "bad = ledger.enqueue(kind='test.failed', params={}, max_attempts=1)\n"
        "ledger.fail(ledger.claim(bad.pk, worker='w'), error=ValueError('no luck'))\n"
        "job = ledger.enqueue(kind='test.long', params={'file_name': 'dialogues.jsonl'}, queue='gpu.0')\n"
        "claim = ledger.claim(job.pk, worker='gpu-box:4711')\n"
        "ledger.heartbeat(claim, n_done=20, n_total=100, message='Writing', counts_anew=True)\n"
        "log_path(job.public_id).parent.mkdir(exist_ok=True)\n"
        "log_path(job.public_id).write_text('loading weights\\n')\n"
        "print(job.pk)",
    )


def test_the_pages_follow_a_job_and_stop_it(site, new_context, enter, job):
    page = enter(new_context(), admin_link(site))
    page.goto(f"{site.url}/jobs/")
    row = page.get_by_role("row").filter(has_text="dialogues.jsonl")
    expect(row).to_contain_text("20 / 100")
    wrong = check(page)
    python(site, f"ledger.heartbeat(ledger.Claim({job}, 1), n_done=60)")
    expect(row).to_contain_text("60 / 100")  # nobody reloaded
    expect(row).to_contain_text("Writing")
    page.reload()
    expect(row).to_contain_text("60 / 100")

    page.get_by_label("State").select_option("failed")
    follow(page.get_by_role("button", name="Show"))
    expect(page.get_by_role("row").filter(has_text="test.failed")).to_be_visible()
    expect(row).to_have_count(0)

    page.goto(f"{site.url}/jobs/")
    follow(row.get_by_role("link"))
    expect(page.locator("#log")).to_contain_text("loading weights")
    wrong += check(page)
    page.get_by_role("button", name="Cancel").dblclick()
    expect(page.get_by_text("stopping")).to_be_visible()
    python(site, f"ledger.cancel(ledger.Claim({job}, 1))")
    expect(page.get_by_text("Cancelled")).to_be_visible()
    assert not wrong, said(wrong)
