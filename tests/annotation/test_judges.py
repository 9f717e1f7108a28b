"""A language model as judge: in whole or not at all, compared with people, and part of no number about them."""

from __future__ import annotations

import csv
import io
import json

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import IntegrityError, transaction
from django.urls import reverse
from django.utils import translation

from annotation import reports
from annotation.errors import DomainError, ImportRefused, NotReady
from annotation.formats.problems import Problem
from annotation.formats.source import Source
from annotation.models import AuditEvent, Judge, JudgeRating, Rating, Study, StudyResponse
from annotation.problems import sentence
from annotation.reporting.archive import check
from annotation.reporting.tables.people import judge_rater_table, judge_table
from annotation.reports import report_state, study_report
from annotation.services.judges import add_judge, remove_judge
from annotation.tables import judges_table, ratings_table
from metrics.judge import alternative_annotator_test
from tests.annotation.rated import rate, varied
from tests.annotation.test_archive import packed

pytestmark = pytest.mark.django_db


@pytest.fixture
def closed_study(open_study) -> Study:
    rate(open_study, varied)
    Study.objects.filter(pk=open_study.pk).update(state=Study.State.CLOSED)
    open_study.refresh_from_db()
    return open_study


def like_first_rater(study: Study) -> list[dict]:
    """A judge that says what R1 says."""
    return [
        {
            "item": rating.placement.assignment.study_item.number,
            "arm": rating.placement.study_response.arm.code,
            "dimension": rating.dimension.key,
            "value": rating.value,
        }
        for rating in Rating.objects.final().in_study(study).first_showing().filter(placement__rater__number=1)
    ]


def as_csv(rows: list[dict]) -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ["item", "arm", "dimension", "value"])
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()


def as_jsonl(rows: list[dict]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


@pytest.fixture
def add(closed_study, researcher, tmp_path):
    """add(content) ► the judge whose ratings are in that file."""

    def from_file(content: bytes, *, name: str = "judge one", study: Study = closed_study, file: str = "j.csv"):
        path = tmp_path / file
        path.write_bytes(content)
        source = Source(path, file)
        return add_judge(study=study, by=researcher, source=source, name=name, model="model-x 2026-01", prompt="Rate.")

    return from_file


def problems_of(refused: pytest.ExceptionInfo[ImportRefused]) -> list[str]:
    return [sentence(Problem.from_json(problem)) for problem in refused.value.detail["problems"]]


@pytest.mark.parametrize("write", [as_csv, as_jsonl])
def test_every_rating_lands_where_the_file_says(add, closed_study, write):
    rows = like_first_rater(closed_study)
    judge = add(write(rows))
    stored = judge.ratings.values_list("study_response__study_item__number", "study_response__arm__code",
                                       "dimension__key", "value")  # fmt: skip
    assert sorted(stored) == sorted(tuple(row.values()) for row in rows)
    assert (judge.n_ratings, len(stored)) == (64, 64)
    event = AuditEvent.objects.get(action="judge.added")
    assert event.detail == {"judge": str(judge.public_id), "n": 64, "sha256": judge.file_sha256}


def test_an_empty_value_rates_nothing(add, closed_study):
    rows = like_first_rater(closed_study)
    rows[0]["value"] = ""
    assert add(as_csv(rows)).n_ratings == 63


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"item": 99}, "j.csv, row 3 [item]: The study has no item number “99”."),
        ({"arm": "Z"}, "j.csv, row 3 [arm]: The study has no arm “Z”. Its arms are: A, B, C, D."),
        (
            {"dimension": "tone"},
            "j.csv, row 3 [dimension]: The rubric has no dimension “tone”. "
            "It has: content, empathy, helpfulness, safety.",
        ),
        ({"dimension": "safety", "value": 2}, "j.csv, row 3 [value]: 2 is not on the scale 0, 1."),
        ({"dimension": "empathy", "value": 1.5}, "j.csv, row 3 [value]: 1.5 is not on the scale 0, 1, 2."),
        (
            {"value": "good"},
            "j.csv, row 3 [value]: “good” is no number. Leave the cell empty where nothing was rated.",
        ),
        ({"item": ""}, "j.csv, row 3 [item]: The value is missing."),
    ],
)
def test_what_is_wrong_is_named_with_its_place_and_nothing_comes_in(add, closed_study, change, said):
    rows = like_first_rater(closed_study)
    rows[1] |= change
    with pytest.raises(ImportRefused) as refused:
        add(as_csv(rows))
    assert problems_of(refused) == [said]
    assert not Judge.objects.exists()
    assert not JudgeRating.objects.exists()


def test_a_rating_given_twice_is_refused(add, closed_study):
    rows = like_first_rater(closed_study)
    with pytest.raises(ImportRefused) as refused:
        add(as_csv([*rows, rows[4]]))
    (problem,) = problems_of(refused)
    assert problem.startswith("j.csv, row 66: “")
    assert problem.endswith("” is there already: row 6.")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "The format was not recognised. It can be one of: jsonl, csv."),
        (b"item,arm,value\n1,A,1\n", "These columns are missing: dimension."),
        (b"item,arm,dimension,value,judge\n", "These columns are not known: judge."),
        (b"item,arm,dimension,value\n", "There is nothing in it to take in."),
        (b"[1, 2]", "The format was not recognised."),
        (b'{"item": 1, "arm": "A", "dimension": "empathy"}\n', "The value is missing."),
    ],
)
def test_a_file_of_another_kind_is_refused(add, content, said):
    with pytest.raises(ImportRefused) as refused:
        add(content, file="j.csv" if content[:1] != b"{" and content else "j.jsonl")
    assert any(said in problem for problem in problems_of(refused))


def test_only_a_closed_study_takes_judges(add, closed_study):
    for state in (Study.State.OPEN, Study.State.PAUSED):
        closed_study.state = state
        with pytest.raises(NotReady, match="once the study is closed"):
            add(b"", study=closed_study)


def test_a_judge_has_a_name_of_its_own(add, closed_study):
    content = as_csv(like_first_rater(closed_study))
    add(content)
    for name, said in (("judge one", "of this name"), ("R1", "names of raters"), ("r27", "names of raters")):
        with pytest.raises(DomainError, match=said):
            add(content, name=name)


def test_the_database_holds_the_scale_for_judges_too(add, closed_study):
    rating = add(as_csv(like_first_rater(closed_study))).ratings.filter(dimension__key="safety").first()
    with pytest.raises(IntegrityError, match="rating_is_on_its_scale"), transaction.atomic():
        JudgeRating.objects.filter(pk=rating.pk).update(value=2)


# The report.


def test_the_report_compares_it_with_people_and_changes_no_number_about_them(
    add, closed_study, researcher, as_user, settings, tmp_path
):
    settings.REPORT_RESAMPLES = settings.REPORT_EXCHANGES = 20
    alone = study_report(closed_study)
    judge = add(as_csv(like_first_rater(closed_study)))
    report = study_report(closed_study)
    assert {name: rows for name, rows in report.sections.items() if name != "judges"} == alone.sections
    people, machine = ratings_table(closed_study), judges_table(closed_study)
    assert people.levels("rater") == ("R1", "R2", "R3")
    expected = alternative_annotator_test(people, machine, "empathy", epsilon=0.2)
    for row in expected:
        found = report.estimate(row.metric, "empathy", row.stratum, row.detail)
        assert found.signature == row.estimate.signature
        assert found.value == (None if row.estimate.value is None else pytest.approx(row.estimate.value, rel=1e-7))
    # It says what R1 says: as close to the others as R1 in every response, and in full agreement with R1.
    beside_first = ({"rater": "R1"}, {"judge": "judge one"})
    assert report.estimate("judge_advantage", "empathy", *beside_first).value == 1.0
    assert report.estimate("judge_kappa_quadratic", "empathy", *beside_first).value == 1.0
    assert report.estimate("winning_rate", "safety", {}, {"judge": "judge one"}).reason == "no_variation"
    assert [str(row[0].text) for row in judge_table(report).rows] == ["judge one"] * 4
    assert len(judge_rater_table(report).rows) == 12
    with translation.override("zh-hans"):
        assert "替代标注者检验" in str(judge_table(report).caption)
    page = as_user(researcher).get(reverse("study_report", args=[closed_study.public_id])).content.decode()
    assert "Language models as judges" in page
    assert not check(packed(closed_study, tmp_path / "study.zip")).differences  # the archive carries judges, too
    remove_judge(judge=judge, by=researcher)
    assert not JudgeRating.objects.exists()
    assert AuditEvent.objects.filter(action="judge.removed").count() == 1
    assert report_state(closed_study) == alone.state


def test_a_new_judge_makes_the_report_old(add, closed_study, researcher):
    content = as_csv(like_first_rater(closed_study))
    states = {report_state(closed_study)}
    first = add(content)
    states.add(report_state(closed_study))
    remove_judge(judge=first, by=researcher)
    add(content)
    states.add(report_state(closed_study))
    assert len(states) == 3
    assert max(map(len, states)) <= 200
    assert reports.study_data(closed_study).judges.levels("rater") == ("judge one",)


# The page.


def form(content: bytes, name: str = "j.csv", **fields) -> dict:
    return {
        "name": "<b>J</b>",
        "model": "model-x",
        "prompt": "Rate.",
        "file": SimpleUploadedFile(name, content),
    } | fields


def test_a_researcher_adds_and_deletes_a_judge_by_page(closed_study, researcher, as_user):
    client = as_user(researcher)
    address = reverse("study_judges", args=[closed_study.public_id])
    assert "No judge has rated this study." in client.get(address).content.decode()
    page = client.post(address, form(as_csv(like_first_rater(closed_study))), follow=True).content.decode()
    assert "&lt;b&gt;J&lt;/b&gt; is in, with 64 ratings." in page
    assert "64 / 64" in page
    assert "<b>J</b>" not in page
    judge = Judge.objects.get()
    assert (judge.model, judge.prompt, judge.file_name, judge.created_by) == ("model-x", "Rate.", "j.csv", researcher)
    page = client.post(reverse("judge_delete", args=[closed_study.public_id, judge.public_id]), follow=True)
    assert "its ratings are deleted" in page.content.decode()
    assert not Judge.objects.exists()


def test_the_page_lists_what_is_wrong(closed_study, researcher, as_user, settings):
    rows = [row | {"arm": "Z"} for row in like_first_rater(closed_study)[:2]]
    client = as_user(researcher)
    address = reverse("study_judges", args=[closed_study.public_id])
    answer = client.post(address, form(as_csv(rows)))
    assert answer.status_code == 422
    page = answer.content.decode()
    assert "There are 2 problems:" in page
    assert "row 2" in page and "row 3" in page
    answer = client.post(address, form(b"x", name="j.csv", model=""))
    assert answer.status_code == 422
    folder = settings.MEDIA_ROOT / "imports"
    assert not folder.exists() or not list(folder.iterdir())  # nothing is left behind


def test_judges_are_the_business_of_the_studys_people(closed_study, researcher, other_researcher, rater, as_user):
    judge = Judge.objects.create(study=closed_study, name="j", model="m", file_name="j.csv", n_ratings=0)
    for person in (other_researcher, rater.user):
        client = as_user(person)
        assert client.get(reverse("study_judges", args=[closed_study.public_id])).status_code == 404
        delete = reverse("judge_delete", args=[closed_study.public_id, judge.public_id])
        assert client.post(delete).status_code == 404
    assert Judge.objects.exists()
    assert StudyResponse.objects.exists()
