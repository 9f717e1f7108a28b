"""Judge and JudgeRating: ratings that a language model gave, beside those of people and never among them."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models

from annotation.models.study import Dimension, Study, StudyResponse


class Judge(models.Model):
    """One language model with one prompt that rated a closed study. Its ratings came in with one file."""

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    study = models.ForeignKey(Study, models.PROTECT, related_name="judges")
    name = models.CharField(max_length=60)  # what reports call it
    model = models.CharField(max_length=200)  # which model, in the researcher's words
    prompt = models.TextField(blank=True)
    file_name = models.CharField(max_length=255)  # as the uploader called it: text to show, never a path
    file_sha256 = models.CharField(max_length=64)
    n_ratings = models.PositiveIntegerField()
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["study", "name"], name="one_judge_per_name_in_study")]

    def __str__(self) -> str:
        return self.name


class JudgeRating(models.Model):
    """One value by one judge. A trigger keeps it on its dimension's scale."""

    judge = models.ForeignKey(Judge, models.CASCADE, related_name="ratings")
    study_response = models.ForeignKey(StudyResponse, models.PROTECT, related_name="+")
    dimension = models.ForeignKey(Dimension, models.PROTECT, related_name="+")
    value = models.PositiveSmallIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["judge", "study_response", "dimension"], name="one_rating_per_judge_response_and_dimension"
            )
        ]

    def __str__(self) -> str:
        return f"{self.dimension_id}={self.value}"
