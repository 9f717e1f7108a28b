"""Training in the background: doors from the job ledger to the services."""

from training.tasks import corpora, runs

__all__ = ["corpora", "runs"]
