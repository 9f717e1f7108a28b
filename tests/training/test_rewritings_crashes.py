"""A real worker that rewrites is killed in the middle: no text is asked for twice, and the money adds up."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal

import pytest

from tests.jobs.site import Site, is_over, kill
from tests.models_runtime.stub_server import says, stub

# Two workers are started: about 15 s.
pytestmark = [pytest.mark.services, pytest.mark.slow]

N = 40
GOOD = "求助者：睡不着。\n支持者：有多久了？"
SET_UP = """
from datetime import date
from decimal import Decimal
from django.core.files.base import ContentFile
from annotation.services.uploads import store_upload
from models_runtime.endpoints.budget import Price
from models_runtime.endpoints.limiter import Limits
from models_runtime.endpoints.values import Sampling
from tests.training import rows
from training.corpus.rewriting import PLAIN, Checks
from training.services.rewriting import UPLOADS, Order, launch_rewriting
price = Price("USD", Decimal("0.5"), Decimal("1.5"), date(2026, 11, 1))
limits = Limits(max_concurrency=2, start_concurrency=2)
system = rows.endpoint_system("{url}", price=price, limits=limits, sampling=Sampling(max_new_tokens=64))
lines = [json.dumps({{"key": str(n), "question": f"#{{n}}#", "answer": "a"}}) for n in range({n})]
upload = store_upload(ContentFile("\\n".join(lines).encode()), folder=UPLOADS)
questions = {{"name": "q.jsonl", "upload": upload, "sha256": "0"}}
order = Order("r", system, questions, {n}, PLAIN, Checks(1, 9, 500), max_new_tokens=64, limit=Decimal(1))
made = launch_rewriting(order, by=None)
Job.objects.filter(pk=made.job_id).update(queue="{queue}")
send_hint(made.job_id, "{queue}")
print(made.job_id, made.folder)
"""


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    with stub(decide=slowly) as server:
        site = Site(tmp_path, ALLOWED_ENDPOINTS=server.origin, TEST_LEASE_SECONDS="4")
        site.migrate()
        site.server = server
        yield site
        site.close()


def slowly(body):
    time.sleep(0.1)
    return says(GOOD)


def test_a_killed_worker_asks_for_nothing_again(site):
    *_, told = site.python(SET_UP.format(url=f"{site.server.origin}/v1", n=N, queue=site.queue)).splitlines()
    pk, folder = told.split()
    worker = site.start_worker()
    end = time.monotonic() + 60
    while len(site.server.requests) < 6:
        assert time.monotonic() < end, (site.folder / "worker.log").read_text()[-4000:]
        time.sleep(0.02)
    kill(worker)
    lines = (site.folder / "rewritings" / folder.rpartition("/")[2] / "attempts.jsonl").read_bytes().splitlines()
    assert 0 < len(lines) < N
    n_before = len(site.server.requests)
    site.start_worker()
    job = site.wait(int(pk), is_over, seconds=90)
    assert job["state"] == "done", job
    asked = Counter(body["messages"][0]["content"].split("#")[1] for body in site.server.bodies)
    known = {json.loads(line)["key"] for line in lines[:-1]}
    assert all(asked[key] == 1 for key in known) and len(asked) == N
    # What was under way when the worker died is asked for again, and counted in full: nobody knows what it cost.
    assert n_before <= N and sum(asked.values()) - N <= 3
    spent, reserved, n_accepted = site.ask("SELECT spent, reserved, n_accepted FROM training_rewriting")[0]
    amounts = site.ask("SELECT state, amount FROM training_rewritingreservation")
    states = Counter(state for state, _amount in amounts)
    assert (n_accepted, Decimal(reserved)) == (N, 0) and states["certain"] >= N and states["uncertain"] <= 2
    assert Decimal(spent) == sum(Decimal(amount) for _state, amount in amounts) and len(amounts) >= sum(asked.values())
