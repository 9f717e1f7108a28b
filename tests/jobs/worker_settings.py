"""For a real worker in a test: the embedded defaults, with short leases and frequent sweeps."""

from config.settings.dev import *  # noqa: F403

JOB_LEASE_SECONDS = 4
CELERY_BEAT_SCHEDULE = {"sweep": {"task": "jobs.sweep", "schedule": 1.0}}
