"""StoredNumbers: the last numbers that were computed for a study, so that nothing is computed twice."""

from __future__ import annotations

from django.db import models

from annotation.models.study import Study


class StoredNumbers(models.Model):
    """One row per study. `state` names the ratings and texts the numbers rest on; another state makes them stale."""

    study = models.OneToOneField(Study, models.CASCADE, related_name="stored_numbers")
    state = models.CharField(max_length=200)
    sections = models.TextField()  # section ► rows, as JSON; PostgreSQL's own JSON would lose the order of names
    seconds = models.FloatField()  # that it took to compute them
    computed_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.state
