"""Every rule that only a trigger can hold is in the database, also after its table was rebuilt."""

from __future__ import annotations

import pytest
from django.db import connection, models

from annotation.apps import install_triggers
from annotation.models import RatingEvent
from annotation.triggers import RULES, trigger_name


def present() -> set[str]:
    table = (
        "sqlite_master WHERE type = 'trigger'" if connection.vendor == "sqlite" else "pg_trigger WHERE NOT tgisinternal"
    )
    name = "name" if connection.vendor == "sqlite" else "tgname"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {name} FROM {table}")
        return {row[0] for row in cursor.fetchall()}


@pytest.mark.django_db
def test_every_rule_has_its_trigger():
    assert {trigger_name(rule) for rule in RULES} <= present()
    assert len({trigger_name(rule) for rule in RULES}) == len(RULES)


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "sqlite", reason="only SQLite rebuilds a table to change it")
def test_a_rebuilt_table_gets_its_triggers_back():
    old = RatingEvent._meta.get_field("note")
    new = models.TextField(blank=True, default="-")
    new.set_attributes_from_name("note")
    new.model = RatingEvent
    with connection.schema_editor() as editor:
        editor.alter_field(RatingEvent, old, new)
    lost = {trigger_name(rule) for rule in RULES} - present()
    assert lost, "this version of Django keeps triggers: install_triggers is no longer needed"
    install_triggers(using="default")
    assert {trigger_name(rule) for rule in RULES} <= present()
