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
from datetime import date; from decimal import Decimal
from jobs.models import Job
from models_runtime.endpoints.budget import Price
from models_runtime.runtimes import Sampling
from tests import factories
from tests.training import rows
rows._numbers = factories._numbers = itertools.count(time.time_ns() // 1000)  # no name of an earlier call
problem = {"file": "a.json", "unit": "entry", "number": 3, "field": "messages", "code": "no_turns", "params": {}}
told = {"error_class": "SourceRefused", "error": "a.json: entry 3", "result": {"problems": [problem]}}
failed = Job.objects.create(kind="training.prepare", state="failed", **told)
waiting = Job.objects.create(kind="training.prepare", params={"about": "E2E"})
blank = {"card": {}, "statistics": {}, "content_hash": ""}
ready = rows.ready_corpus()
for _ in range(3): rows.make_case(ready)
made = [ready, rows.ready_corpus(job=failed, **blank), rows.ready_corpus(job=waiting, **blank)]
rewriting = rows.make_rewriting(limit="2", spent="0.5")
turns = [{"role": "client", "content": "睡不着。"}]
rows.write_dialogues(rewriting, json.dumps({"key": "1", "turns": turns, "reference": "多久了？"}) + chr(10))
running = rows.make_rewriting(job=Job.objects.create(kind="training.rewrite"), n_done=1)
paths = [f"corpora/{one.public_id}/" for one in made] + [f"corpora/{ready.public_id}/review/"]
paths += [f"rewritings/{one.public_id}/" for one in (rewriting, running)]
paths += [f"corpora/{one.public_id}/remove/" for one in made[:2]]
price = Price("USD", Decimal("1"), Decimal("2"), date(2026, 11, 1))
priced = {"price": price, "sampling": Sampling(max_new_tokens=64)}
writer = rows.endpoint_system("http://127.0.0.1:9/v1", f"e2e-writer-{next(rows._numbers)}", **priced)
print(json.dumps([paths, writer.name]))
"""
FORMS = ["corpora/", "corpora/new/", "rewritings/", "rewritings/new/"]


@pytest.mark.parametrize("language", ["zh-hans", "en"])
def test_every_page_and_reviewing_by_keys_alone(site, new_context, enter, language):
    paths, writer = json.loads(site.python("-c", SETUP).splitlines()[-1])
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
    page.locator("#mend summary").click()
    page.locator("#mend textarea").last.fill("I hear you.")
    follow(page.locator("#keep-mended"))
    expect(page.locator("#keep")).to_have_count(0)
    expect(page.locator("main td code")).to_have_count(1)  # kept in other words
    wrong += check(page)

    page.goto(f"{site.url}/training/rewritings/new/")
    page.locator("[name=name]").fill(f"Asked for in {language}")
    questions = b'{"key": "1", "question": "q", "answer": "a"}\n'
    page.locator("[name=file]").set_input_files({"name": "q.jsonl", "mimeType": "text/plain", "buffer": questions})
    page.locator("[name=system]").select_option(label=writer)
    follow(page.locator("main form .primary"))
    expect(page.locator("[name=limit]")).not_to_have_value("")
    wrong += check(page)
    page.locator("main form .primary").dblclick()
    expect(page.get_by_role("heading", name=f"Asked for in {language}")).to_be_visible()

    page.goto(f"{site.url}/training/{paths[-1]}")
    follow(page.locator("#remove"))
    assert page.url.endswith("/training/corpora/")
    assert page.goto(f"{site.url}/training/{paths[1]}").status == 404
    assert not wrong, said(wrong)
