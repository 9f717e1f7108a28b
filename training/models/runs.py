"""TrainingRun: one training with its config and seed; it ends as a system."""

from __future__ import annotations

import uuid
from pathlib import Path

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from annotation.models import System
from jobs.models import Job
from training.models.corpora import Corpus


class TrainingRun(models.Model):
    """A run: fixed at its launch, whatever becomes of corpus and base later. Its folder holds curves and weights."""

    class Intent(models.TextChoices):
        """What people want of it; how far it is shows in its job."""

        GO = "go", _("Go")
        STOP = "stop", _("Stop")

    # Made by the page that asks "launch?", so that pressing twice launches once.
    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    name = models.CharField(max_length=200, unique=True)
    corpus = models.ForeignKey(Corpus, models.PROTECT, related_name="runs")
    content_hash = models.CharField(max_length=64, blank=True)  # of the corpus's training part, at launch
    base = models.CharField(max_length=500)  # folder of the model it starts from
    config = models.JSONField()  # of FinetuneConfig
    device = models.CharField(max_length=8, default="cpu")
    processes = models.PositiveSmallIntegerField(default=1)
    queue = models.CharField(max_length=60, blank=True)  # "" = chosen when a job is made
    cost = models.JSONField(default=dict)  # what the estimate said at launch
    leaks = models.JSONField(default=list)  # items of datasets here that it learns from all the same: [dataset, item]
    system_name = models.CharField(max_length=120, blank=True)  # of what comes out; "" = that of the run
    decoding = models.CharField(max_length=60, default="soulchat-paper")  # preset of the system that comes out
    intent = models.CharField(max_length=8, choices=Intent, default=Intent.GO)
    job = models.ForeignKey(Job, models.PROTECT, null=True, related_name="+")  # the newest; each resume has its own
    facts = models.JSONField(default=dict)  # what the process that trains said of itself when it was ready
    card = models.JSONField(default=dict)  # of the exported weights, once they are there
    system = models.OneToOneField(System, models.PROTECT, null=True, related_name="training_run")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.name

    @property
    def folder(self) -> Path:
        return Path(settings.RUN_DIR) / str(self.public_id)
