"""Where a job waits."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured

from config import env
from jobs import ledger
from jobs.queues import gpu_queue


@pytest.mark.django_db
def test_a_job_goes_to_the_gpu_with_the_least_to_do(settings):
    settings.GPU_QUEUES = ["gpu.0", "gpu.1"]
    first = ledger.enqueue(kind="test.kind", params={}, queue=gpu_queue())
    second = ledger.enqueue(kind="test.kind", params={}, queue=gpu_queue())
    assert (first.queue, second.queue) == ("gpu.0", "gpu.1")
    ledger.request_cancel(second.pk)
    assert gpu_queue() == "gpu.1"


@pytest.mark.django_db
def test_without_gpus_there_is_one_queue(settings):
    settings.GPU_QUEUES = []
    assert gpu_queue() == "default"


def test_gpu_queues_have_names_that_cannot_be_mixed_up(monkeypatch):
    monkeypatch.setenv("GPU_QUEUES", "gpu.0,gpu.GPU-3f2a")
    assert env.gpu_queues() == ["gpu.0", "gpu.GPU-3f2a"]
    monkeypatch.setenv("GPU_QUEUES", "0")
    with pytest.raises(ImproperlyConfigured, match=r"gpu\.0"):
        env.gpu_queues()
