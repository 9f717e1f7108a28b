"""Rules that a CHECK cannot say, as triggers on both engines: append-only logs, frozen studies, values on scale.

`install(schema_editor)` runs after every migrate (annotation/apps.py). A refused statement raises
IntegrityError whose message is the rule's name. Conditions are written in the SQL that SQLite and PostgreSQL share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """Refuse `event` on `table` where `when` holds; OLD and NEW are the row before and after."""

    name: str
    table: str
    event: str  # INSERT, UPDATE or DELETE
    when: str = "TRUE"


def _changed(*columns: str) -> str:
    return "(" + " OR ".join(f"OLD.{c} IS DISTINCT FROM NEW.{c}" for c in columns) + ")"


_STUDY_SETTINGS = (
    "rubric_id", "seed", "raters_per_item", "presentation", "min_gap", "repeat_percent", "disclosure_policy",
    "needs_practice", "pay_currency", "pay_per_response", "consent", "design_hash", "opened_at",
)  # fmt: skip
_STUDY_OPENED = "EXISTS (SELECT 1 FROM annotation_study s WHERE s.id = {row}.study_id AND s.opened_at IS NOT NULL)"
_RUBRIC_USED = "EXISTS (SELECT 1 FROM annotation_study s WHERE s.rubric_id = OLD.{key} AND s.opened_at IS NOT NULL)"
_OFF_SCALE = "NEW.value > (SELECT d.highest FROM annotation_dimension d WHERE d.id = NEW.dimension_id)"

RULES = [
    Rule("rating_events_are_append_only", "annotation_ratingevent", "UPDATE"),
    Rule("rating_events_are_append_only", "annotation_ratingevent", "DELETE"),
    Rule("audit_events_are_append_only", "annotation_auditevent", "UPDATE"),
    Rule("audit_events_are_append_only", "annotation_auditevent", "DELETE"),
    Rule("rating_is_on_its_scale", "annotation_rating", "INSERT", _OFF_SCALE),
    Rule("rating_is_on_its_scale", "annotation_rating", "UPDATE", _OFF_SCALE),
    Rule("shown_responses_are_frozen", "annotation_studyresponse", "UPDATE"),
    Rule(
        "placed_responses_are_frozen",
        "annotation_response",
        "UPDATE",
        _changed("item_id", "system_id", "original", "text", "sha256")
        + " AND EXISTS (SELECT 1 FROM annotation_studyresponse r WHERE r.response_id = OLD.id)",
    ),
    Rule(
        "placed_items_are_frozen",
        "annotation_item",
        "UPDATE",
        _changed("dataset_id", "turns", "reference", "content_hash")
        + " AND EXISTS (SELECT 1 FROM annotation_studyitem i JOIN annotation_study s ON s.id = i.study_id"
        " WHERE i.item_id = OLD.id AND s.opened_at IS NOT NULL)",
    ),
    Rule("used_rubrics_are_frozen", "annotation_rubric", "UPDATE", _RUBRIC_USED.format(key="id")),
    Rule("used_rubrics_are_frozen", "annotation_dimension", "UPDATE", _RUBRIC_USED.format(key="rubric_id")),
    Rule(
        "opened_studies_are_frozen",
        "annotation_study",
        "UPDATE",
        "OLD.opened_at IS NOT NULL AND " + _changed(*_STUDY_SETTINGS),
    ),
    Rule(
        "frozen_plans_stay",
        "annotation_study",
        "UPDATE",
        "OLD.plan_frozen_at IS NOT NULL AND " + _changed("plan", "plan_hash", "plan_frozen_at"),
    ),
    Rule(
        "unblinding_is_final",
        "annotation_study",
        "UPDATE",
        "OLD.unblinded_at IS NOT NULL AND " + _changed("unblinded_at", "unblinded_by_id", "state"),
    ),
    Rule("items_of_opened_studies_stay", "annotation_studyitem", "INSERT", _STUDY_OPENED.format(row="NEW")),
    Rule("items_of_opened_studies_stay", "annotation_studyitem", "DELETE", _STUDY_OPENED.format(row="OLD")),
    Rule("items_of_opened_studies_stay", "annotation_studyitem", "UPDATE", _STUDY_OPENED.format(row="OLD")),
    Rule("arms_of_opened_studies_stay", "annotation_arm", "INSERT", _STUDY_OPENED.format(row="NEW")),
    Rule("arms_of_opened_studies_stay", "annotation_arm", "DELETE", _STUDY_OPENED.format(row="OLD")),
    Rule("arms_of_opened_studies_stay", "annotation_arm", "UPDATE", _STUDY_OPENED.format(row="OLD")),
    Rule(
        "placements_stay",
        "annotation_placement",
        "UPDATE",
        _changed("public_id", "assignment_id", "rater_id", "study_response_id", "slot", "position"),
    ),
]


def trigger_name(rule: Rule) -> str:
    """What the trigger of this rule is called in the database."""
    return f"{rule.name}_{rule.table.removeprefix('annotation_')}_{rule.event.lower()}"


def install(schema_editor: Any) -> None:
    """Create every trigger; replaces those that exist."""
    remove(schema_editor)
    is_sqlite = schema_editor.connection.vendor == "sqlite"
    for rule in RULES:
        name = trigger_name(rule)
        if is_sqlite:
            schema_editor.execute(
                f"CREATE TRIGGER {name} BEFORE {rule.event} ON {rule.table} FOR EACH ROW WHEN {rule.when} "
                f"BEGIN SELECT RAISE(ABORT, '{rule.name}'); END",
                params=None,
            )
        else:
            row = "OLD" if rule.event == "DELETE" else "NEW"
            schema_editor.execute(
                f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                f"IF {rule.when} THEN RAISE EXCEPTION '{rule.name}' USING ERRCODE = 'check_violation'; END IF; "
                f"RETURN {row}; END $$",
                params=None,
            )
            schema_editor.execute(
                f"CREATE TRIGGER {name} BEFORE {rule.event} ON {rule.table} FOR EACH ROW EXECUTE FUNCTION {name}()",
                params=None,
            )


def remove(schema_editor: Any) -> None:
    """Drop every trigger that exists."""
    is_sqlite = schema_editor.connection.vendor == "sqlite"
    for rule in RULES:
        name = trigger_name(rule)
        if is_sqlite:
            schema_editor.execute(f"DROP TRIGGER IF EXISTS {name}", params=None)
        else:
            schema_editor.execute(f"DROP TRIGGER IF EXISTS {name} ON {rule.table}", params=None)
            schema_editor.execute(f"DROP FUNCTION IF EXISTS {name}()", params=None)
