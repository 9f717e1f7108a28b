"""Rewriting: questions become dialogues.  Corpus: dialogues prepared for training.  ReviewCase: for a person."""

from __future__ import annotations

import uuid
from pathlib import Path

from django.conf import settings as site
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from annotation.formats.dialogues import COUNSELLOR
from annotation.models import System
from jobs.models import Job
from models_runtime.models import BaseReservation
from models_runtime.runtimes import Settings, settings_from


class Rewriting(models.Model):
    """Single-turn questions and answers that a system turns into dialogues, under settings fixed at the start."""

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    name = models.CharField(max_length=200, unique=True)
    system = models.ForeignKey(System, models.PROTECT, related_name="+")
    kind = models.CharField(max_length=16)  # of the runtime, with its settings as they were at the start
    settings = models.JSONField()
    style = models.JSONField()  # name and wording
    checks = models.JSONField()
    n_tries = models.PositiveSmallIntegerField(default=3)
    seed = models.PositiveBigIntegerField(default=1)
    questions = models.JSONField(default=dict)  # the file: its own name, its upload and its SHA-256
    n_questions = models.PositiveIntegerField(default=0)
    n_done = models.PositiveIntegerField(default=0)  # questions with a dialogue, or no try left
    n_accepted = models.PositiveIntegerField(default=0)
    counts = models.JSONField(default=dict)  # attempts by what became of them
    limit = models.CharField(max_length=60, blank=True)  # money, exact, as text; "" = the system has no price
    spent = models.CharField(max_length=60, default="0")
    reserved = models.CharField(max_length=60, default="0")
    job = models.ForeignKey(Job, models.PROTECT, null=True, related_name="+")
    created_by = models.ForeignKey(site.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.name

    @property
    def value(self) -> Settings:
        return settings_from(self.kind, self.settings)

    @property
    def folder(self) -> Path:
        return Path(site.REWRITING_DIR) / str(self.public_id)

    @property
    def dialogues_file(self) -> Path:
        """The accepted dialogues as rows of ours; written whenever the job stops."""
        return self.folder / "dialogues.jsonl"


class RewritingReservation(BaseReservation):
    """Of a rewriting."""

    rewriting = models.ForeignKey(Rewriting, models.CASCADE, related_name="reservations")

    class Meta:
        indexes = [
            models.Index(fields=["rewriting"], name="open_rewriting_reservations", condition=models.Q(state="reserved"))
        ]


class Corpus(models.Model):
    """Dialogues in a folder that training reads. What was asked for stands in `plan`, what came out in `card`.

    plan: template (its content, None = the family's), test_share, seed, limits, max_broken, rules (None = not cleaned),
        is_against_database, review (an upload).  sources: [{"name", and "upload" or "path"}].
    """

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    name = models.CharField(max_length=200, unique=True)
    weights = models.CharField(max_length=500)  # folder of the model whose tokens it is made of
    path = models.CharField(max_length=500, blank=True)  # of a folder that was made elsewhere; "" = made here
    plan = models.JSONField(default=dict)
    sources = models.JSONField(default=list)  # files, in order
    rewriting = models.ForeignKey(Rewriting, models.PROTECT, null=True, related_name="corpora")
    reviewed = models.ForeignKey("self", models.PROTECT, null=True, related_name="+")  # whose verdicts were applied
    job = models.ForeignKey(Job, models.PROTECT, null=True, related_name="+")
    card = models.JSONField(default=dict)  # of the folder, once it is there
    statistics = models.JSONField(default=dict)  # likewise, and how many samples have which length in tokens
    content_hash = models.CharField(max_length=64, blank=True)  # of the training part; "" = not prepared yet
    created_by = models.ForeignKey(site.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]
        verbose_name_plural = "corpora"

    def __str__(self) -> str:
        return self.name

    @property
    def is_ready(self) -> bool:
        return bool(self.content_hash)

    @property
    def folder(self) -> Path:
        return Path(self.path) if self.path else Path(site.CORPUS_DIR) / str(self.public_id)


class ReviewCase(models.Model):
    """A dialogue that cleaning held back, and what a person decided."""

    class Verdict(models.TextChoices):
        OPEN = "", _("Open")
        KEEP = "keep", _("Keep")
        REMOVE = "remove", _("Remove")

    corpus = models.ForeignKey(Corpus, models.CASCADE, related_name="review_cases")
    name = models.CharField(max_length=64)  # digest of its turns
    row = models.JSONField()  # the line of the queue: turns, and what was found where
    verdict = models.CharField(max_length=8, choices=Verdict, default=Verdict.OPEN, blank=True)
    mended = models.JSONField(default=list)  # the text of each turn as a person keeps it; [] = as it was
    mended_digest = models.CharField(max_length=64, blank=True)  # of these texts
    decided_by = models.ForeignKey(site.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(fields=["corpus", "name"], name="one_case_per_corpus_and_dialogue"),
            models.CheckConstraint(
                condition=Q(mended_digest="") | Q(verdict="keep"), name="only_what_is_kept_is_mended"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def stands(self) -> str:
        """The verdict and the words it is about, as a page says which it has seen."""
        return f"{self.verdict}:{self.mended_digest}" if self.mended_digest else self.verdict

    @property
    def turns(self) -> list[tuple[str, str]]:
        """Role and text of each turn as it was read, the reply at the end included."""
        dialogue = self.row["dialogue"]
        turns = [(turn["role"], turn["content"]) for turn in dialogue["turns"]]
        return [*turns, (COUNSELLOR, dialogue["reference"])] if dialogue.get("reference") else turns

    @property
    def kept_turns(self) -> list[tuple[str, str]]:
        """The same as they are kept."""
        texts = self.mended or [text for _role, text in self.turns]
        return [(role, text) for (role, _text), text in zip(self.turns, texts, strict=True)]
