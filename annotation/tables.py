"""What reports and exports read: a study's ratings as one long table, in parts small enough to stream.

One row is one value: one rater, one response, one dimension. Raters are pseudonyms (R1, R2, …) and systems are arm
codes; a system's name is there only where the caller says that the study is unblinded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd
from django.db.models import Count, Max, Q, Sum

from annotation.design.blinding import slot_letter
from annotation.models import AuthorGuess, JudgeRating, Placement, Rating, RatingEvent, Recognised, Study
from annotation.reporting.facts import ArmLabel
from metrics.report import ExitAnswers, Guess
from metrics.table import RatingTable, Scale

Cell = str | int | float | None
ROWS_PER_QUERY = 4000
UNKNOWN_TOPIC = "unknown"


@dataclass(frozen=True)
class Column:
    """One column of an export, described in both languages for the data dictionary."""

    name: str
    en: str
    zh: str
    unit: str = ""
    range: str = ""
    is_rounded: bool = False  # a workbook shows two decimals; the cell holds the whole number


SYSTEM_COLUMNS = (
    Column("system", "Short name of the system behind the arm", "该组对应系统的简称"),
    Column("system_name", "Name of the system behind the arm", "该组对应系统的名称"),
)
_NOTE_COLUMN = Column("note", "What the rater wrote about this response", "评分者对该回复的备注")


def ratings_columns(*, see_systems: bool = False, with_notes: bool = False) -> tuple[Column, ...]:
    """The columns of `ratings_rows`, in its order."""
    return (
        Column("study", "Identifier of the study", "研究的标识符", range="UUID"),
        Column("rubric", "Rubric and its version", "评分标准及其版本"),
        Column("dataset", "Short name of the dataset the item was drawn from", "条目所属数据集的简称"),
        Column("item", "Number of the item in this study", "条目在本研究中的编号", range="1, 2, …"),
        Column("item_key", "Name of the item in its dataset", "条目在数据集中的名称"),
        Column("dialogue", "Dialogue the item was cut from", "条目所出自的对话"),
        Column("topic", "Topic of the dialogue, empty if not known", "对话主题，未知则为空"),
        Column("rater", "Pseudonym of the rater", "评分者代号", range="R1, R2, …"),
        Column("arm", "Code of the system, drawn for this study", "系统在本研究中的组代码", range="A, B, …"),
        *(SYSTEM_COLUMNS if see_systems else ()),
        Column(
            "slot",
            "Letter of the response among those to one item; says nothing about the arm",
            "该回复在同一条目各回复中的字母，与组代码无关",
            range="A, B, …",
        ),
        Column("position", "Planned place in the rater’s queue", "在评分者队列中的计划位置", range="0, 1, …"),
        Column(
            "is_repeat",
            "1 if the rater met this response a second time, unannounced",
            "评分者第二次（未告知）遇到该回复时为 1",
            range="0, 1",
        ),
        Column("dimension", "Dimension that was rated", "所评维度"),
        Column("value", "Point given; the scale depends on the dimension", "所给分值；量表因维度而异", "points"),
        Column(
            "is_flagged", "1 if the rater marked the response for attention", "评分者标记该回复时为 1", range="0, 1"
        ),
        *((_NOTE_COLUMN,) if with_notes else ()),
        Column("submitted_at", "When the response was first submitted, UTC", "首次提交时间（UTC）", range="ISO 8601"),
        Column(
            "active_seconds",
            "Time in view and in use until the last save, for all dimensions together",
            "截至最后一次保存的有效用时（全部维度合计）",
            "s",
            "≥ 0",
        ),
        Column("rev", "How many times it was saved", "保存次数", range="1, 2, …"),
    )


def ratings_rows(study: Study, *, see_systems: bool = False, with_notes: bool = False) -> Iterator[tuple[Cell, ...]]:
    """Submitted ratings as rows of `ratings_columns`, by item, arm, rater, showing and dimension.

    Read some items at a time: no query stays open while a slow reader takes the rows, which on SQLite would keep
    raters from saving. A rating that is saved meanwhile may therefore be in or out; `fingerprint` tells.
    """
    arms = {
        arm.pk: (arm.code, arm.system.slug, arm.system.name) if see_systems else (arm.code,)
        for arm in study.arms.select_related("system")
    }
    raters = {rater.pk: rater.code for rater in study.members.raters()}
    dimensions = dict(study.rubric.dimensions.values_list("pk", "key"))
    about_study = (str(study.public_id), str(study.rubric))
    for items in _item_parts(study, n_dimensions=len(dimensions), n_arms=len(arms)):
        for item, rater, arm, slot, position, is_repeat, dimension, value, flagged, note, at, active_ms, rev in (
            Rating.objects.final()
            .filter(placement__assignment__study_item__in=items)
            .order_by(
                "placement__assignment__study_item__number",
                "placement__study_response__arm__code",
                "placement__rater__number",
                "placement__assignment__is_repeat",
                "dimension__order",
            )
            .values_list(
                "placement__assignment__study_item",
                "placement__rater",
                "placement__study_response__arm",
                "placement__slot",
                "placement__position",
                "placement__assignment__is_repeat",
                "dimension",
                "value",
                "placement__is_flagged",
                "placement__note",
                "placement__submitted_at",
                "placement__active_ms",
                "placement__rev",
            )
        ):
            yield (
                *about_study,
                *items[item],
                raters[rater],
                *arms[arm],
                slot_letter(slot),
                position,
                int(is_repeat),
                dimensions[dimension],
                value,
                int(flagged),
                *((note,) if with_notes else ()),
                utc_text(at),
                active_ms / 1000,
                rev,
            )


def utc_text(at: datetime | None) -> str:
    """The moment in UTC as ISO 8601 to the second; empty if there is none."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if at else ""


def _item_parts(study: Study, *, n_dimensions: int, n_arms: int) -> Iterator[dict[int, tuple[Cell, ...]]]:
    """The study's items in order, some at a time: id ► dataset, number, key, dialogue and topic."""
    rows_per_item = max(1, n_dimensions * n_arms * study.raters_per_item)
    size = min(500, max(1, ROWS_PER_QUERY // rows_per_item))  # 500: SQLite and plans dislike longer IN lists
    last = -1
    while True:
        part = list(
            study.study_items.filter(number__gt=last)
            .order_by("number")
            .values_list(
                "pk", "item__dataset__slug", "number", "item__key", "item__dialogue_key",
                "item__topic", "item__topic_label",
            )[:size]
        )  # fmt: skip
        if not part:
            return
        last = part[-1][2]
        yield {
            pk: (dataset, number, key, dialogue, topic or label)
            for pk, dataset, number, key, dialogue, topic, label in part
        }


def ratings_table(study: Study) -> RatingTable:
    """All submitted ratings, checked and ready for every metric; systems are arm codes, clusters are dialogues.

    seconds is the rater's active time for the whole response, so it is the same for all its dimensions.
    """
    ratings = (
        Rating.objects.final()
        .filter(placement__rater__study=study)
        .values_list(
            "placement__assignment__study_item",
            "placement__rater__number",
            "placement__study_response__arm__code",
            "dimension__key",
            "value",
            "placement__assignment__is_repeat",
            "placement__position",
            "placement__active_ms",
        )
    )
    columns = ["study_item", "rater", "system", "dimension", "value", "is_repeat", "position", "seconds"]
    frame = pd.DataFrame.from_records(list(ratings), columns=columns)
    frame["rater"] = "R" + frame["rater"].astype(str)
    frame["seconds"] = frame["seconds"] / 1000
    frame = frame.merge(_items_frame(study), on="study_item", validate="many_to_one").drop(columns="study_item")
    return RatingTable.from_frame(frame, _scales(study))


def judges_table(study: Study) -> RatingTable | None:
    """The ratings of all judges in a table of their own, each judge a rater by its name; None if there is no judge."""
    ratings = JudgeRating.objects.filter(judge__study=study).values_list(
        "study_response__study_item", "judge__name", "study_response__arm__code", "dimension__key", "value"
    )
    frame = pd.DataFrame.from_records(list(ratings), columns=["study_item", "rater", "system", "dimension", "value"])
    if frame.empty:
        return None
    frame = frame.merge(_items_frame(study), on="study_item", validate="many_to_one").drop(columns="study_item")
    return RatingTable.from_frame(frame, _scales(study))


def _scales(study: Study) -> list[Scale]:
    return [
        Scale(dimension.key, tuple(float(point) for point in dimension.scale))
        for dimension in study.rubric.dimensions.order_by("order")
    ]


def _items_frame(study: Study) -> pd.DataFrame:
    """study_item, item, dataset, cluster, topic: a row per item of the study."""
    items = study.study_items.values_list(
        "pk", "number", "item__dataset__slug", "item__dialogue_key", "item__topic", "item__topic_label"
    )
    rows = [
        (pk, str(number), dataset, f"{dataset}/{dialogue}", topic or label or UNKNOWN_TOPIC)
        for pk, number, dataset, dialogue, topic, label in items
    ]
    return pd.DataFrame.from_records(rows, columns=["study_item", "item", "dataset", "cluster", "topic"])


def arm_labels(study: Study) -> tuple[ArmLabel, ...]:
    """The arms by code; systems are named after unblinding only, whoever asks."""
    arms = study.arms.exclude(code=None).order_by("code").values_list("code", "system__name", "system__slug")
    return tuple(ArmLabel(code or "", *(names if study.is_unblinded else ())) for code, *names in arms)


def exit_answers(study: Study) -> ExitAnswers:
    """What raters said once they were done: whom they took for the writers, and whether they believed they knew."""
    guesses = AuthorGuess.objects.filter(placement__rater__study=study).values_list(
        "placement__rater__number", "placement__study_response__arm__code", "arm__code"
    )
    said = study.members.raters().filter(guess__isnull=False).values_list("number", "guess__recognised")
    return ExitAnswers(
        systems=tuple(sorted(arm.code for arm in study.arms.all() if arm.code)),
        guesses=tuple(
            Guess(f"R{rater}", str(system), guess)
            for rater, system, guess in sorted(guesses, key=lambda row: (*row[:2], row[2] or ""))
        ),
        recognised={f"R{rater}": answer for rater, answer in said},
        choices=tuple(Recognised.values),
    )


def exit_state(study: Study) -> str:
    """Answers are only ever added, so counting them tells whether there are new ones."""
    n_guesses = AuthorGuess.objects.filter(placement__rater__study=study).count()
    return f"{n_guesses}.{study.members.raters().filter(guess__isnull=False).count()}"


def judges_state(study: Study) -> str:
    """Judges come and go whole, and a new one gets a new id."""
    found = study.judges.aggregate(n=Count("id"), last=Max("id"))
    return f"{found['n']}.{found['last'] or 0}"


@dataclass(frozen=True)
class Fingerprint:
    """What a study's ratings were at one moment. Every save raises `n_saves`, so equal means unchanged."""

    n_events: int
    last_event: int  # id of the newest event in the append-only log; 0 = none
    n_final: int
    n_skipped: int
    n_saves: int

    def __str__(self) -> str:
        return f"{self.n_events}-{self.last_event}-{self.n_final}-{self.n_skipped}-{self.n_saves}"


def fingerprint(study: Study) -> Fingerprint:
    """The state of the study's ratings now, from two aggregates."""
    events = RatingEvent.objects.filter(placement__rater__study=study).aggregate(n=Count("id"), last=Max("id"))
    placed = Placement.objects.filter(rater__study=study).aggregate(
        final=Count("id", filter=Q(state=Placement.State.FINAL)),
        skipped=Count("id", filter=Q(state=Placement.State.SKIPPED)),
        saves=Sum("rev"),
    )
    return Fingerprint(events["n"], events["last"] or 0, placed["final"], placed["skipped"], placed["saves"] or 0)
