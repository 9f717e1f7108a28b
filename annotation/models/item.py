"""Dataset, Item, System, Response: what is shown and who wrote it."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from annotation.models.fields import ReadableJSON
from annotation.querysets import ItemQuerySet, ResponseQuerySet


class Dataset(models.Model):
    """A named collection of items, with where it came from."""

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    slug = models.SlugField(max_length=60, unique=True, allow_unicode=True)
    name = models.CharField(max_length=200)
    source = models.CharField(max_length=500, blank=True)  # a person's words: where the data come from
    licence = models.CharField(max_length=200, blank=True)
    is_demo = models.BooleanField(default=False)
    n_items = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class ImportRecord(models.Model):
    """One file that was taken in, whole. The same file with the same options is not taken in twice."""

    class Kind(models.TextChoices):
        ITEMS = "items", _("Items")
        RESPONSES = "responses", _("Responses")

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    kind = models.CharField(max_length=16, choices=Kind)
    dataset = models.ForeignKey(Dataset, models.PROTECT, related_name="imports")
    file_name = models.CharField(max_length=255)  # as the uploader called it: text to show, never a path
    file_sha256 = models.CharField(max_length=64)
    options_sha256 = models.CharField(max_length=64)
    options = models.JSONField(default=dict)
    counts = models.JSONField(default=dict)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["dataset", "kind", "file_sha256", "options_sha256"], name="same_file_is_imported_once"
            )
        ]

    def __str__(self) -> str:
        return self.file_name


class Item(models.Model):
    """One dialogue context that every system answers; its last turn is the client's."""

    dataset = models.ForeignKey(Dataset, models.PROTECT, related_name="items")
    key = models.CharField(max_length=120)  # the item's name in the source, e.g. "1042" or "1042#3"
    dialogue_key = models.CharField(max_length=100)  # several items may come from one dialogue
    turns = models.JSONField(encoder=ReadableJSON)  # [{"role": "client" | "counsellor", "text": str}, …]
    reference = models.TextField(blank=True)  # the counsellor's own next reply
    topic = models.CharField(max_length=60, blank=True)  # slug of a known topic, else ""
    topic_label = models.CharField(max_length=120, blank=True)  # as the source names it
    risks = models.JSONField(default=list)  # categories found by the content screen, e.g. ["self_harm"]
    n_characters = models.PositiveIntegerField()  # of all turns
    content_hash = models.CharField(max_length=64)  # SHA-256 over turns and reference
    imported_from = models.ForeignKey(ImportRecord, models.PROTECT, null=True, related_name="items")

    objects: ClassVar[models.Manager[Item]] = ItemQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["dataset", "key"], name="one_item_per_key_in_dataset")]
        indexes = [models.Index(fields=["dataset", "topic"], name="item_by_topic")]

    def __str__(self) -> str:
        return self.key


class System(models.Model):
    """What is compared: weights, prompt template and decoding. Its name never reaches a rater."""

    class Kind(models.TextChoices):
        STORED = "stored", _("Stored responses")
        REFERENCE = "reference", _("Human reference")

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=120, unique=True)
    kind = models.CharField(max_length=16, choices=Kind, default=Kind.STORED)
    aliases = models.JSONField(default=list)  # other names the disclosure scanner looks for
    description = models.TextField(blank=True)
    is_demo = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["kind"], condition=Q(kind="reference"), name="one_human_reference")
        ]

    def __str__(self) -> str:
        return self.name


class Response(models.Model):
    """What one system wrote for one item."""

    item = models.ForeignKey(Item, models.PROTECT, related_name="responses")
    system = models.ForeignKey(System, models.PROTECT, related_name="responses")
    repeat = models.PositiveSmallIntegerField(default=0)
    original = models.TextField()  # exactly as it came in
    text = models.TextField()  # normalised as every system's text is
    disclosures = models.JSONField(default=list)  # [{"start", "end", "kind", "matched"}] within `text`
    sha256 = models.CharField(max_length=64)  # of `original`
    provenance = models.JSONField(default=dict)  # decoding, weights, file and row: whatever is known
    imported_from = models.ForeignKey(ImportRecord, models.PROTECT, null=True, related_name="responses")
    created_at = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[models.Manager[Response]] = ResponseQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["system", "item", "repeat"], name="one_response_per_system_item_repeat"),
            models.CheckConstraint(condition=~Q(text=""), name="response_has_text"),
        ]

    def __str__(self) -> str:
        return f"{self.system_id}:{self.item_id}"
