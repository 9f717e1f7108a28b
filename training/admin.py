"""Django's admin for the tables of training: for looking."""

from __future__ import annotations

from django.contrib import admin

from annotation.admin import ReadOnly, site
from training.models import Corpus, ReviewCase, Rewriting, TrainingRun


@admin.register(TrainingRun, site=site)
class TrainingRunAdmin(ReadOnly):
    list_display = ("name", "corpus", "device", "processes", "intent", "job", "system", "created_at")
    list_select_related = ("corpus", "job", "system")


@admin.register(Corpus, site=site)
class CorpusAdmin(ReadOnly):
    exclude = ("statistics",)
    list_display = ("name", "weights", "content_hash", "rewriting", "reviewed", "job", "created_at")
    list_select_related = ("rewriting", "reviewed", "job")


@admin.register(ReviewCase, site=site)
class ReviewCaseAdmin(ReadOnly):
    list_display = ("id", "corpus", "name", "verdict", "decided_by", "decided_at")
    list_select_related = ("corpus", "decided_by")


@admin.register(Rewriting, site=site)
class RewritingAdmin(ReadOnly):
    list_display = (
        "name",
        "system",
        "kind",
        "n_questions",
        "n_done",
        "n_accepted",
        "spent",
        "limit",
        "job",
        "created_at",
    )
    list_select_related = ("system", "job")
