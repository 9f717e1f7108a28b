"""For a real worker in a test: the embedded defaults, with short leases, frequent sweeps and a queue of its own."""

import os

from config.settings.dev import *  # noqa: F403
from config.settings.dev import DATABASES

JOB_LEASE_SECONDS = float(os.environ.get("TEST_LEASE_SECONDS", "4"))
JOB_RETRY_SECONDS = 0.5
CELERY_BEAT_SCHEDULE = {"sweep": {"task": "jobs.sweep", "schedule": 1.0}}
# Brokers are shared with whoever else tests on this machine.
CELERY_TASK_DEFAULT_QUEUE = os.environ["TEST_QUEUE"]
CELERY_IMPORTS = ["tests.jobs.kinds"]
if "sqlite" in DATABASES["default"]["ENGINE"]:
    DATABASES["default"]["OPTIONS"]["timeout"] = float(os.environ.get("TEST_BUSY_SECONDS", "20"))
