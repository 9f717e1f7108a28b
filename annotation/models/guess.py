"""AuthorGuess: whom a rater, once done, takes for the writer of a response."""

from __future__ import annotations

from django.db import models

from annotation.models.assignment import Placement
from annotation.models.study import Arm


class AuthorGuess(models.Model):
    """One answer to "Who wrote this?". Who did is the arm of the placement's response. Append-only, by triggers."""

    placement = models.OneToOneField(Placement, models.PROTECT, related_name="author_guess")
    arm = models.ForeignKey(Arm, models.PROTECT, null=True, related_name="+")  # null: the rater cannot tell
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "author guesses"

    def __str__(self) -> str:
        return str(self.placement_id)
