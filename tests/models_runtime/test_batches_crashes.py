"""A real worker and a real child, killed in the middle: every response is there exactly once, and no process stays."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.jobs.site import Site, is_over, kill
from tests.models_runtime import tiny

# Worker and child are started three times, and each child loads torch: about 30 s.
pytestmark = [pytest.mark.services, pytest.mark.slow]

N_ITEMS, REPEATS = 30, 2
SET_UP = """
from models_runtime.engine.spec import DecodingConfig
from models_runtime.runtimes import LocalSettings
from models_runtime.services.batches import Launch, Questions, launch_batch
from models_runtime.services.runtimes import set_runtime
from tests import factories
system, dataset = factories.make_system("toy"), factories.make_dataset("d")
for number in range({n}):
    factories.make_item(dataset, str(number))
decoding = DecodingConfig(is_sampled=True, max_new_tokens=400)
settings = LocalSettings(weights="toy", decoding=decoding, queue="{queue}", batch_rows=1)
set_runtime(system=system, settings=settings, by=None)
batch = launch_batch(Launch([system], Questions(dataset=dataset), repeats={repeats}), by=None)
job = batch.parts.get().job
send_hint(job.pk, job.queue)
print(job.pk)
"""


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    site = Site(tmp_path, MODEL_DIRS=str(tmp_path / "models"), OMP_NUM_THREADS="1", TEST_LEASE_SECONDS="6")
    tiny.causal(tmp_path / "models" / "toy")
    site.migrate()
    yield site
    site.close()


def n_stored(site: Site) -> int:
    return site.ask("SELECT count(*) FROM annotation_response")[0][0]


def wait_for_more(site: Site, pk: int, n: int, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while n_stored(site) < n:
        assert time.monotonic() < end, f"{site.job(pk)}\n{(site.folder / 'worker.log').read_text()[-4000:]}"
        time.sleep(0.02)


def child_of(site: Site, pk: int) -> int:
    return next(pid for name, pid in site.processes(pk).items() if name in ("child", "helper"))


def test_child_and_worker_are_killed_and_nothing_is_missing_or_double(site):
    pk = int(site.python(SET_UP.format(n=N_ITEMS, queue=site.queue, repeats=REPEATS)).splitlines()[-1])
    worker = site.start_worker()
    wait_for_more(site, pk, 3)
    os.kill(child_of(site, pk), signal.SIGKILL)
    n = n_stored(site)
    wait_for_more(site, pk, n + 3)
    kill(worker)
    n = n_stored(site)
    assert n < N_ITEMS * REPEATS, "it was over before it could be killed"
    site.start_worker()
    job = site.wait(pk, is_over, seconds=120)
    assert job["state"] == "done", job
    keys = site.ask("SELECT item_id, repeat, count(*) FROM annotation_response GROUP BY item_id, repeat")
    failed = site.ask("SELECT item_id, repeat FROM models_runtime_generationfailure")
    assert {count for *_key, count in keys} == {1}
    assert len(keys) + len(failed) == N_ITEMS * REPEATS and not {key[:2] for key in keys} & set(failed)
    digests = site.ask("SELECT provenance FROM annotation_response")
    assert len({json.loads(text)["spec_digest"] for (text,) in digests}) == 1
    assert site.processes(pk) == {} and not list((site.folder / "batches").iterdir())
