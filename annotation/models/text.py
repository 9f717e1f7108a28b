"""TextCounts: what the text metrics need of one response, counted once."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from annotation.models.item import Response
from annotation.querysets import TextCountsQuerySet


class TextCounts(models.Model):
    """One response counted against its item's reference. Anybody may throw such a row away: it is counted again.

    A trigger does so when either text changes. A row that is replaced gets a new id, so the ids tell what is new.
    """

    response = models.OneToOneField(Response, models.CASCADE, related_name="text_counts")
    cutting = models.CharField(max_length=16)  # which dictionary and program counted; see annotation/counting.py
    values = models.BinaryField()  # a row of metrics.text.TextStatistics: int32, little endian

    objects: ClassVar[models.Manager[TextCounts]] = TextCountsQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "text counts"

    def __str__(self) -> str:
        return str(self.response_id)
