"""Corpora and rewritings in a browser: axe and width on every page in both languages, and reviewing by keys alone."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import follow
from tests.e2e.test_pages import check, said
from tests.e2e.test_people import admin_link

SETUP = """
import django, itertools, json, time; django.setup()
from jobs.models import Job
from tests import factories
from tests.training import rows
rows._numbers = factories._numbers = itertools.count(time.time_ns() // 1000)  # no name of an earlier call
problem = {"file": "a.json", "unit": "entry", "number": 3, "field": "messages", "code": "no_turns", "params": {}}
told = {"error_class": "SourceRefused", "error": "a.json: entry 3", "result": {"problems": [problem]}}
failed = Job.objects.create(kind="training.prepare", state="failed", **told)
waiting = Job.objects.create(kind="training.prepare", params={"about": "E2E"})
blank = {"card": {}, "statistics": {}, "content_hash": ""}
ready = rows.ready_corpus()
for _ in range(2): rows.make_case(ready)
made = [ready, rows.ready_corpus(job=failed, **blank), rows.ready_corpus(job=waiting, **blank)]
rewriting = rows.make_rewriting(limit="2", spent="0.5")
turns = [{"role": "client", "content": "睡不着。"}]
rows.write_dialogues(rewriting, json.dumps({"key": "1", "turns": turns, "reference": "多久了？"}) + chr(10))
running = rows.make_rewriting(job=Job.objects.create(kind="training.rewrite"), n_done=1)
paths = [f"corpora/{one.public_id}/" for one in made] + [f"corpora/{ready.public_id}/review/"]
paths += [f"rewritings/{one.public_id}/" for one in (rewriting, running)]
print(json.dumps(paths))
"""
FORMS = ["corpora/", "corpora/new/", "rewritings/", "rewritings/new/"]


@pytest.mark.parametrize("language", ["zh-hans", "en"])
def test_every_page_and_reviewing_by_keys_alone(site, new_context, enter, language):
    paths = json.loads(site.python("-c", SETUP).splitlines()[-1])
    page = enter(new_context(language), admin_link(site))
    wrong = []
    for path in [*FORMS, *paths]:
        assert page.goto(f"{site.url}/training/{path}").status == 200, path
        for details in page.locator("details").all():
            details.evaluate("one => { one.open = true; }")
        wrong += check(page)
    page.goto(f"{site.url}/training/{paths[3]}")
    for button in ("#keep", "#remove"):
        page.locator(button).focus()
        follow(page.locator(button), key="Enter")
    expect(page.locator("#keep")).to_have_count(0)
    wrong += check(page)
    assert not wrong, said(wrong)
