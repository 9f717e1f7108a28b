"""Settings, urls and the worker. The Celery app is bound here so that `enqueue` finds its broker."""

from config.celery import app as celery_app

__all__ = ["celery_app"]
