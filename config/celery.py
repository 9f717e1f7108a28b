"""The worker's door. A message carries the id of a job and nothing else; the ledger is the truth."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.production")

app = Celery("qingting")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
