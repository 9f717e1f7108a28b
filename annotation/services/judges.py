"""add_judge: ratings that a language model gave to a closed study, from a file, all or none.  remove_judge."""

from __future__ import annotations

import re

from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from annotation.errors import DomainError, NotReady
from annotation.formats.judges import JUDGE_FORMATS, JudgeRow, read_judge_ratings
from annotation.formats.problems import Findings, TooManyProblems
from annotation.formats.source import Source, digest, sniff
from annotation.models import Judge, JudgeRating, Study, StudyResponse, User
from annotation.services.audit import record
from annotation.services.importing import refusal

ROWS_PER_STATEMENT = 2000
_CODE_OF_A_RATER = re.compile(r"R\d+", re.IGNORECASE)


def add_judge(*, study: Study, by: User | None, source: Source, name: str, model: str, prompt: str) -> Judge:
    """Take in all ratings of one judge. They enter the comparison of this judge with people, and nothing else.

    Raises NotReady unless the study is closed, DomainError if the name is taken or looks like a rater's,
    ImportRefused, with the list of problems, if anything in the file is wrong; then nothing has changed.
    """
    if not study.is_closed:
        raise NotReady(_("Ratings by a judge can be added once the study is closed."))
    if _CODE_OF_A_RATER.fullmatch(name):
        raise DomainError(_("R1, R2, … are the names of raters. Give the judge another one."), field="name")
    if study.judges.filter(name=name).exists():
        raise _taken()
    rows = _read(study, source)
    try:
        return _write(study, by, rows, source=source, name=name, model=model, prompt=prompt)
    except IntegrityError as error:
        if study.judges.filter(name=name).exists():  # somebody else was faster
            raise _taken() from error
        raise


def _taken() -> DomainError:
    return DomainError(_("There is a judge of this name in the study. Delete it first, or choose another name."))


def _read(study: Study, source: Source) -> list[JudgeRow]:
    """Every rating of the file, checked. Raises ImportRefused."""
    findings = Findings()
    rows: list[JudgeRow] = []
    file_format = sniff(source)
    try:
        if file_format is None or file_format not in JUDGE_FORMATS:
            findings.add(source.place, "unknown_format", expected=", ".join(JUDGE_FORMATS))
        else:
            rows = list(
                read_judge_ratings(
                    source,
                    file_format,
                    findings,
                    items=list(study.study_items.values_list("number", flat=True)),
                    arms=[arm.code for arm in study.arms.order_by("code") if arm.code],
                    scales={dimension.key: dimension.scale for dimension in study.rubric.dimensions.order_by("order")},
                )
            )
            if not rows and not findings.problems:
                findings.add(source.place, "no_items")
    except TooManyProblems:
        pass
    if findings.problems:
        raise refusal(findings.problems)
    return rows


@transaction.atomic
def _write(
    study: Study, by: User | None, rows: list[JudgeRow], *, source: Source, name: str, model: str, prompt: str
) -> Judge:
    judge = Judge.objects.create(
        study=study,
        name=name,
        model=model,
        prompt=prompt,
        file_name=source.name,
        file_sha256=digest(source),
        n_ratings=len(rows),
        created_by=by,
    )
    responses = {
        (number, arm): pk
        for pk, number, arm in StudyResponse.objects.filter(study_item__study=study).values_list(
            "pk", "study_item__number", "arm__code"
        )
    }
    dimensions = dict(study.rubric.dimensions.values_list("key", "pk"))
    JudgeRating.objects.bulk_create(
        (
            JudgeRating(
                judge=judge,
                study_response_id=responses[row.item, row.arm],
                dimension_id=dimensions[row.dimension],
                value=row.value,
            )
            for row in rows
        ),
        batch_size=ROWS_PER_STATEMENT,
    )
    record("judge.added", by=by, study=study, judge=str(judge.public_id), n=len(rows), sha256=judge.file_sha256)
    return judge


@transaction.atomic
def remove_judge(*, judge: Judge, by: User | None) -> None:
    """Delete a judge with its ratings; the log keeps that it was there."""
    record(
        "judge.removed", by=by, study=judge.study, judge=str(judge.public_id), n=judge.n_ratings,
        sha256=judge.file_sha256,
    )  # fmt: skip
    judge.delete()
