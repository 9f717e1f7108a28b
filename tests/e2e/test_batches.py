"""Systems that answer, in a browser: entered, estimated, launched, watched, paused, gone on with; axe on every page."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import follow
from tests.e2e.test_pages import check, said
from tests.e2e.test_people import admin_link

SETUP = """
import django; django.setup()
from jobs import ledger; from jobs.models import Job
from models_runtime.models import BatchPart, GenerationFailure
from tests import factories
"""


def python(site, code: str) -> str:
    return site.python("-c", SETUP + code).strip()


@pytest.fixture
def dataset(site) -> str:
    """Four items, and a system that can be told how to answer; the name of the dataset."""
    return python(
        site,
        "dataset = factories.make_dataset('e2e-batch', name='E2E batch items')\n"
        "[factories.make_item(dataset, str(n)) for n in range(4)]\n"
        "factories.make_system('e2e-toy', name='E2E Toy')\n"
        "print(dataset.name)",
    )


def test_from_a_systems_page_to_a_batch_that_is_paused_and_goes_on(site, new_context, enter, dataset):
    page = enter(new_context(), admin_link(site))
    page.goto(f"{site.url}/systems/")
    follow(page.get_by_role("link", name="E2E Toy"))
    follow(page.get_by_role("link", name="How it answers"))
    wrong = check(page)
    follow(page.get_by_role("link", name="Endpoint"))
    wrong += check(page)
    follow(page.get_by_role("link", name="Local model"))
    page.get_by_label("Folder of the weights").fill("toy")
    follow(page.get_by_role("button", name="Save"))
    expect(page.get_by_text("Saved.")).to_be_visible()

    follow(page.get_by_role("link", name="Let it answer …"))
    expect(page.get_by_label("E2E Toy")).to_be_checked()
    page.get_by_label("Dataset", exact=False).last.select_option(label=dataset)
    wrong += check(page)
    follow(page.get_by_role("button", name="See what it will take"))
    expect(page.get_by_role("row").filter(has_text="E2E Toy")).to_contain_text("by the rule below")
    wrong += check(page)
    confirm = page.url
    page.get_by_role("button", name="Launch").dblclick()
    expect(page.get_by_text("0 of 4 responses are there.")).to_be_visible()
    batch = page.url
    page.goto(confirm)  # as in another tab, or by the way back
    expect(page.get_by_text("This was launched already")).to_be_visible()
    assert page.url == batch

    part = "part = BatchPart.objects.get(system__slug='e2e-toy')\n"
    python(
        site,
        part + "claim = ledger.claim(part.job_id, worker='gpu-box:1')\n"
        "ledger.heartbeat(claim, n_done=1, n_total=4, counts_anew=True)\n"
        "items = list(part.batch.items.all())\n"
        "factories.make_response(items[0], part.system)\n"
        "GenerationFailure.objects.create(part=part, item=items[1], code='context_too_long', message='too long')",
    )
    expect(page.get_by_text("1 of 4 responses are there.")).to_be_visible()  # nobody reloaded
    page.reload()
    expect(page.get_by_role("heading", name="Items without a response")).to_be_visible()
    wrong += check(page)
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Stopping")).to_be_visible()
    python(site, part + "ledger.cancel(ledger.Claim(part.job_id, part.job.token))")
    expect(page.get_by_text("Paused")).to_be_visible()
    wrong += check(page)
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("Waiting")).to_be_visible()
    page.get_by_role("button", name="Cancel for good").click()
    expect(page.get_by_text("Cancelled")).to_be_visible()

    page.goto(f"{site.url}/templates/mechat-2/")
    wrong += check(page)
    page.goto(f"{site.url}/batches/")
    wrong += check(page)
    assert not wrong, said(wrong)
