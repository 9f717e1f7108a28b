"""A real worker takes a file in, also when it is killed over it."""

from __future__ import annotations

import json
import uuid

import pytest

from tests.jobs.site import Site, is_over, kill

pytestmark = [pytest.mark.services, pytest.mark.slow]


def enqueue_import(site: Site, n_items: int) -> int:
    """A job that imports items from an upload of `n_items` lines."""
    name = uuid.uuid4().hex
    folder = site.folder / "uploads" / "imports"
    folder.mkdir(parents=True)
    turns = [{"role": "client", "content": "x" * 500}]
    (folder / name).write_text("\n".join(json.dumps({"key": str(n), "turns": turns}) for n in range(n_items)))
    params = {
        "upload": name,
        "file_name": "items.jsonl",
        "options": {"format": None, "one_per_dialogue": False, "sample": None, "seed": 1, "is_stratified": False},
        "new_dataset": {"slug": "a", "name": "a", "source": "", "licence": ""},
    }
    return int(
        site.python(
            f"params = json.loads('''{json.dumps(params)}''')\n"
            f"job = ledger.enqueue(kind='annotation.import_items', params=params, queue='{site.queue}')\n"
            "send_hint(job.pk, job.queue); print(job.pk)"
        )
    )


def uploads(site: Site) -> list[str]:
    return [path.name for path in (site.folder / "uploads" / "imports").iterdir()]


def test_a_worker_takes_a_file_in(make_site):
    site = make_site()
    site.start_worker()
    job = site.wait(enqueue_import(site, 1000), is_over)
    assert job["state"] == "done", job
    assert json.loads(job["result"])["counts"]["n_new"] == 1000
    assert uploads(site) == []


def test_a_killed_worker_loses_nothing_and_doubles_nothing(make_site):
    site = make_site()
    pk = enqueue_import(site, 20_000)
    worker = site.start_worker()
    site.wait(pk, lambda job: job["state"] == "running")
    kill(worker)
    assert site.job(pk)["state"] == "running"  # nobody knows yet
    site.start_worker()
    job = site.wait(pk, is_over, seconds=120)
    assert (job["state"], job["attempt"]) == ("done", 2), job
    assert site.ask("SELECT count(*) FROM annotation_item") == [(20_000,)]
    assert uploads(site) == []
