"""Rules that a CHECK cannot say, as triggers on both engines: append-only logs, frozen studies, values on scale.

`install(schema_editor)` runs after every migrate (annotation/apps.py). A refused statement raises
IntegrityError whose message is the rule's name. Some rules refuse nothing and put something right instead.
Conditions are written in the SQL that SQLite and PostgreSQL share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """Refuse `event` on `table` where `when` holds; OLD and NEW are the row before and after.

    then: a statement that is run after the event in place of refusing it.
    """

    name: str
    table: str
    event: str  # INSERT, UPDATE or DELETE
    when: str = "TRUE"
    then: str = ""


def _changed(*columns: str) -> str:
    return "(" + " OR ".join(f"OLD.{c} IS DISTINCT FROM NEW.{c}" for c in columns) + ")"


_STUDY_SETTINGS = (
    "rubric_id", "seed", "raters_per_item", "presentation", "min_gap", "repeat_percent", "disclosure_policy",
    "needs_practice", "pay_currency", "pay_per_response", "consent", "design_hash", "opened_at",
)  # fmt: skip
_STUDY_OPENED = "EXISTS (SELECT 1 FROM annotation_study s WHERE s.id = {row}.study_id AND s.opened_at IS NOT NULL)"
_RUBRIC_USED = "EXISTS (SELECT 1 FROM annotation_study s WHERE s.rubric_id = OLD.{key} AND s.opened_at IS NOT NULL)"
_RATER_IS_DONE = (
    "EXISTS (SELECT 1 FROM annotation_placement p JOIN annotation_member m ON m.id = p.rater_id"
    " WHERE p.id = {row}.placement_id AND m.finished_at IS NOT NULL)"
)
_OFF_SCALE = "NEW.value > (SELECT d.highest FROM annotation_dimension d WHERE d.id = NEW.dimension_id)"

RULES = [
    Rule("rating_events_are_append_only", "annotation_ratingevent", "UPDATE"),
    Rule("rating_events_are_append_only", "annotation_ratingevent", "DELETE"),
    Rule("audit_events_are_append_only", "annotation_auditevent", "UPDATE"),
    Rule("audit_events_are_append_only", "annotation_auditevent", "DELETE"),
    Rule("rating_is_on_its_scale", "annotation_rating", "INSERT", _OFF_SCALE),
    Rule("rating_is_on_its_scale", "annotation_rating", "UPDATE", _OFF_SCALE),
    Rule("rating_is_on_its_scale", "annotation_judgerating", "INSERT", _OFF_SCALE),
    Rule("rating_is_on_its_scale", "annotation_judgerating", "UPDATE", _OFF_SCALE),
    Rule("ratings_of_those_who_are_done_stay", "annotation_rating", "INSERT", _RATER_IS_DONE.format(row="NEW")),
    Rule("ratings_of_those_who_are_done_stay", "annotation_rating", "UPDATE", _RATER_IS_DONE.format(row="NEW")),
    Rule("ratings_of_those_who_are_done_stay", "annotation_rating", "DELETE", _RATER_IS_DONE.format(row="OLD")),
    Rule(
        "done_is_done",
        "annotation_member",
        "UPDATE",
        "(OLD.finished_at IS NOT NULL AND "
        + _changed("finished_at")
        + ") OR (OLD.authors_asked_at IS NOT NULL AND "
        + _changed("authors_asked_at")
        + ")",
    ),
    Rule("author_guesses_are_append_only", "annotation_authorguess", "UPDATE"),
    Rule("author_guesses_are_append_only", "annotation_authorguess", "DELETE"),
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
    Rule(
        "counts_go_with_the_text",
        "annotation_response",
        "UPDATE",
        _changed("item_id", "text"),
        "DELETE FROM annotation_textcounts WHERE response_id = OLD.id",
    ),
    Rule(
        "counts_go_with_the_text",
        "annotation_item",
        "UPDATE",
        _changed("reference"),
        "DELETE FROM annotation_textcounts WHERE response_id IN"
        " (SELECT r.id FROM annotation_response r WHERE r.item_id = OLD.id)",
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
        event = f"{'AFTER' if rule.then else 'BEFORE'} {rule.event} ON {rule.table} FOR EACH ROW"
        if is_sqlite:
            then = rule.then or f"SELECT RAISE(ABORT, '{rule.name}')"
            schema_editor.execute(f"CREATE TRIGGER {name} {event} WHEN {rule.when} BEGIN {then}; END", params=None)
        else:
            then = rule.then or f"RAISE EXCEPTION '{rule.name}' USING ERRCODE = 'check_violation'"
            row = "OLD" if rule.event == "DELETE" else "NEW"
            schema_editor.execute(
                f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                f"IF {rule.when} THEN {then}; END IF; RETURN {row}; END $$",
                params=None,
            )
            schema_editor.execute(f"CREATE TRIGGER {name} {event} EXECUTE FUNCTION {name}()", params=None)


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
