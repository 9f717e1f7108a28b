"""Django's admin for the tables of systems that answer: for looking, and without keys."""

from __future__ import annotations

from django.contrib import admin

from annotation.admin import ReadOnly, site
from models_runtime.models import BatchPart, GenerationBatch, GenerationFailure, PromptTemplate, Runtime, RuntimeVersion


@admin.register(Runtime, site=site)
class RuntimeAdmin(ReadOnly):
    exclude = ("sealed_key",)
    list_display = ("id", "system", "kind", "changed_at")
    list_select_related = ("system",)


@admin.register(RuntimeVersion, site=site)
class RuntimeVersionAdmin(ReadOnly):
    list_display = ("id", "system", "number", "digest", "created_at")
    list_select_related = ("system",)


@admin.register(PromptTemplate, site=site)
class PromptTemplateAdmin(ReadOnly):
    list_display = ("template_id", "version", "created_by", "created_at")
    list_select_related = ("created_by",)


@admin.register(GenerationBatch, site=site)
class GenerationBatchAdmin(ReadOnly):
    list_display = ("public_id", "dataset", "study", "n_items", "repeats", "intent", "created_at")
    list_select_related = ("dataset", "study")


@admin.register(BatchPart, site=site)
class BatchPartAdmin(ReadOnly):
    list_display = ("id", "batch", "system", "kind", "job")
    list_select_related = ("batch", "system", "job")


@admin.register(GenerationFailure, site=site)
class GenerationFailureAdmin(ReadOnly):
    list_display = ("id", "part", "item", "repeat", "code", "attempts", "is_waiting", "at")
    list_select_related = ("part", "item")
