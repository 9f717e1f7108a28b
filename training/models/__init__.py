"""The rows of training, one module per subject."""

from training.models.corpora import Corpus, ReviewCase, Rewriting, RewritingReservation
from training.models.runs import TrainingRun

__all__ = ["Corpus", "ReviewCase", "Rewriting", "RewritingReservation", "TrainingRun"]
