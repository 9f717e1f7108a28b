"""The domain as a Django app. Its triggers are put in place after every migrate: SQLite rebuilds a table to change
it, and a rebuilt table has lost its triggers."""

from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.models.signals import post_migrate


def install_triggers(using: str, **kwargs: Any) -> None:
    from annotation import triggers  # models of other apps are not loaded yet when this module is

    with connections[using].schema_editor() as schema_editor:
        triggers.install(schema_editor)


class AnnotationConfig(AppConfig):
    name = "annotation"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        post_migrate.connect(install_triggers, sender=self)
