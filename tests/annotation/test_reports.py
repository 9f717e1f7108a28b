"""The report: the right numbers, honest about what is missing, and blind until the key is opened."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import get_args

import pytest
from django.urls import reverse
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

from annotation import reports
from annotation.models import ImportRecord, Item, Placement, Rating, StudyItem, System
from annotation.reporting.methods import methods_paragraph
from annotation.reporting.numbers import MARKS, NOTES, REASONS, rounded
from annotation.reporting.tables.scores import kappa_table, paper_table, score_table
from annotation.reports import study_report
from annotation.services.text_counts import count_texts
from annotation.tables import fingerprint
from annotation.tasks import REPORT
from jobs.models import Job
from jobs.tasks import run_job
from metrics import report as metrics_report
from metrics.results import Reason
from tests import factories
from tests.annotation.rated import rate, unblind, varied

pytestmark = pytest.mark.django_db


def page_of(client, study) -> str:
    response = client.get(reverse("study_report", args=[study.public_id]))
    assert response.status_code == 200
    return response.content.decode()


def first_ratings(study, dimension: str) -> dict[tuple[str, int], list[int]]:
    """(arm, item number) ► the values given at the first showing, read row by row."""
    values = defaultdict(list)
    for rating in Rating.objects.final().in_study(study).first_showing().filter(dimension__key=dimension):
        assignment = rating.placement.assignment
        values[rating.placement.study_response.arm.code, assignment.study_item.number].append(rating.value)
    return values


def test_means_are_those_of_the_raw_ratings(open_study):
    rate(open_study, varied)
    report = study_report(open_study)
    dataset = open_study.study_items.first().item.dataset.slug
    for dimension in ("content", "empathy", "helpfulness", "safety"):
        values = first_ratings(open_study, dimension)
        for arm in "ABCD":
            given = [sum(row) / len(row) for (code, _), row in values.items() if code == arm]
            estimate = report.estimate("mean_score", dimension, {"dataset": dataset, "system": arm})
            assert estimate.value == pytest.approx(sum(given) / len(given), rel=1e-7)
            assert estimate.n["responses"] == 4
            assert estimate.n["ratings"] == 12


def test_kappa_agrees_with_statsmodels(open_study):
    rate(open_study, varied)
    report = study_report(open_study)
    for dimension in ("content", "empathy", "helpfulness"):
        rows = list(first_ratings(open_study, dimension).values())
        expected = fleiss_kappa(aggregate_raters(rows, n_cat=3)[0])
        assert report.estimate("fleiss_kappa", dimension).value == pytest.approx(expected, rel=1e-7)


def test_it_says_undefined_where_everyone_gave_the_same_score(open_study, researcher, as_user):
    rate(open_study, varied)
    safety = study_report(open_study).estimate("fleiss_kappa", "safety")
    assert (safety.value, safety.reason) == (None, "no_variation")
    page = page_of(as_user(researcher), open_study)
    assert "undefined: everyone gave the same score" in page
    assert "100.0 %" in page
    assert "another score in at most 52.7 % of dialogues" in page  # 1 - 0.05 ** (1 / 4)


def test_it_is_honest_about_an_unfinished_study(open_study, researcher, as_user):
    rate(open_study, varied, only=lambda p: p.rater.number < 3 or p.assignment.study_item.number <= 3)
    Placement.objects.filter(
        rater__study=open_study, rater__number=3, state=Placement.State.OPEN, assignment__is_repeat=False, slot=0
    ).update(state=Placement.State.SKIPPED)
    totals = study_report(open_study).facts.totals
    assert (totals.n_responses, totals.n_complete) == (16, 12)
    assert (totals.n_placed, totals.n_final, totals.n_skipped, totals.n_missing) == (48, 44, 1, 3)
    page = page_of(as_user(researcher), open_study)
    assert "12 of 16 responses were rated by everyone who was to rate them." in page
    assert "Numbers from an unfinished study change with every rating." in page


def test_drafts_are_left_out(open_study):
    rate(open_study, 2)
    Placement.objects.filter(rater__study=open_study, rater__number=1).update(state=Placement.State.DRAFT)
    estimate = study_report(open_study).estimate("percent_agreement", "content")
    assert (estimate.n["raters"], estimate.n["ratings"]) == (2, 32)


def test_hidden_repeats_are_reported_and_left_out_of_the_scores(researcher, as_user):
    study = factories.make_study(researcher=researcher, n_items=10, repeat_percent=20)
    study = factories.open_for_rating(study, by=researcher)
    rate(study, lambda p, d: 0 if p.assignment.is_repeat and p.rater.number == 1 and d.key == "content" else 1)
    report = study_report(study)
    repeats = Placement.objects.filter(rater__study=study, assignment__is_repeat=True)
    assert report.facts.n_repeats_placed == report.facts.n_repeats_final == repeats.count() > 0
    changed = repeats.filter(rater__number=1).count()
    identical = report.estimate("repeat_percent_identical", "content")
    assert identical.value == pytest.approx(1 - changed / repeats.count())
    assert identical.n["responses_used"] == repeats.count()
    assert report.estimate("repeat_percent_identical", "empathy").value == 1
    assert report.estimate("percent_agreement", "content").value == 1  # first showings only
    assert "Hidden repeats: how often" in page_of(as_user(researcher), study)


def test_several_datasets_are_shown_apart_and_together(researcher):
    study = factories.make_study(researcher=researcher, n_items=2)
    other = factories.make_dataset(name="Other")
    systems = list(System.objects.filter(arms__study=study))
    for number in (3, 4):
        item = factories.make_item(other)
        StudyItem.objects.create(study=study, item=item, number=number)
        for system in systems:
            factories.make_response(item, system)
    factories.open_for_rating(study, by=researcher)
    rate(study, lambda p, d: int(p.assignment.study_item.number > 2))
    rows = score_table(study_report(study)).rows
    assert [(row[0].is_given, row[1].arm.code) for row in rows] == [
        *[(True, code) for code in "ABCDABCD"],
        *[(False, code) for code in "ABCD"],
    ]
    means = {str(row[0].text): row[2].estimate.value for row in rows}
    assert means["Other"] == 1
    assert means["All datasets"] == 0.5


def test_arms_stay_coded_until_the_key_is_opened(open_study, researcher, admin, as_user):
    rate(open_study, varied)
    names = [name for system in System.objects.all() for name in (system.name, system.slug)]
    for person in (researcher, admin):
        page = page_of(as_user(person), open_study)
        assert not [name for name in names if name in page]
        assert "Blinded: arms are codes" in page
    unblind(open_study, admin)
    page = page_of(as_user(researcher), open_study)
    assert not [system.name for system in System.objects.all() if system.name not in page]


def test_the_key_cannot_be_drawn_from_what_a_report_prints(researcher, as_user):
    study = factories.make_study(researcher=researcher, seed=987654321012345)
    factories.open_for_rating(study, by=researcher)
    rate(study, varied)
    assert "987654321012345" not in page_of(as_user(researcher), study)
    assert reports.resampling_seed(study) != study.seed


def test_an_unchanged_report_is_not_computed_again(open_study, monkeypatch):
    rate(open_study, varied, only=lambda p: p.rater.number < 3)
    first = study_report(open_study)
    calls = []
    data = reports.study_data
    monkeypatch.setattr(reports, "study_data", lambda study: calls.append(study) or data(study))
    assert study_report(open_study).sections == first.sections
    assert not calls
    rate(open_study, varied)
    assert study_report(open_study).state != first.state
    assert len(calls) == 1


def test_a_stored_report_keeps_the_order_of_everything(open_study):
    """Archives are compared line by line, and PostgreSQL's own JSON sorts names by their length."""
    rate(open_study, varied)
    computed = metrics_report.compute(reports.study_data(open_study))
    study_report(open_study)
    stored = study_report(open_study).sections
    assert list(stored) == list(computed)
    for name, rows in computed.items():
        assert json.dumps([row.to_dict() for row in stored[name]]) == json.dumps([row.to_dict() for row in rows])


def test_a_revised_rating_changes_the_fingerprint(open_study):
    rate(open_study, 1)
    before = fingerprint(open_study)
    Placement.objects.filter(pk=Placement.objects.first().pk).update(rev=2)
    assert fingerprint(open_study) != before


def test_another_study_is_not_counted(open_study, researcher):
    other = factories.open_for_rating(factories.make_study(researcher=researcher), by=researcher)
    rate(other, 2)
    assert study_report(open_study).is_empty
    rate(open_study, 1)
    assert study_report(open_study).estimate("mean_score", "content", {"system": "A"}) is None  # one dataset only
    assert {row[2].estimate.value for row in score_table(study_report(open_study)).rows} == {1.0}


def test_a_study_without_ratings_says_so(open_study, researcher, as_user):
    assert "No rating has been submitted yet" in page_of(as_user(researcher), open_study)


def test_a_draft_says_so(study, researcher, as_user):
    assert "has not been opened yet" in page_of(as_user(researcher), study)


def test_it_is_there_for_the_people_of_the_study_only(open_study, other_researcher, rater, as_user, client):
    url = reverse("study_report", args=[open_study.public_id])
    assert as_user(other_researcher).get(url).status_code == 404
    assert as_user(rater.user).get(url).status_code == 404
    assert client.get(url).status_code == 302
    assert as_user(other_researcher).post(url).status_code in (404, 405)


def test_hostile_names_come_out_as_text(researcher, as_user):
    dataset = factories.make_dataset(name="<script>alert(1)</script>\u202egpj")
    study = factories.make_study(researcher=researcher, name="<img src=x onerror=alert(1)>", dataset=dataset)
    factories.open_for_rating(study, by=researcher)
    rate(study, varied)
    page = page_of(as_user(researcher), study)
    assert "<img src=x" not in page
    assert "<script>alert" not in page
    assert '<span class="text" dir="auto">&lt;script&gt;alert(1)&lt;/script&gt;\u202egpj</span>' in page


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1.834, "1.83"),
        (1.835, "1.84"),
        (0.125, "0.13"),
        (1.005, "1.01"),
        (2.0, "2.00"),
        (-0.0004, "0.00"),
        (-0.255, "-0.26"),
    ],
)
def test_numbers_are_rounded_half_away_from_zero(value, shown):
    assert rounded(value) == shown


def test_shares_are_rounded_as_percent():
    assert rounded(0.8335, 1, percent=True) == "83.4"
    assert rounded(1 / 3, 1, percent=True) == "33.3"


def test_what_takes_long_is_computed_in_the_background(open_study, researcher, as_user, settings):
    settings.REPORT_AT_ONCE = 10
    rate(open_study, varied, only=lambda p: p.rater.number < 3)
    client = as_user(researcher)
    page = page_of(client, open_study)
    page_of(client, open_study)
    (job,) = Job.objects.filter(kind=REPORT)  # asked for twice, computed once
    assert "The numbers are being computed" in page
    assert "Agreement between raters" not in page
    waiting = client.get(reverse("study_report_job", args=[open_study.public_id]))
    assert "HX-Refresh" not in waiting.headers
    run_job(job.pk)
    assert Job.objects.get(pk=job.pk).state == Job.State.DONE
    assert client.get(reverse("study_report_job", args=[open_study.public_id])).headers["HX-Refresh"] == "true"
    page = page_of(client, open_study)
    assert "Agreement between raters" in page
    assert "being computed" not in page
    rate(open_study, varied)  # the last rater hands in: the old numbers stay, and say so
    page = page_of(client, open_study)
    assert "What stands below is older" in page
    assert "Agreement between raters" in page


def test_text_metrics_wait_for_the_unblinding_where_the_reference_is_an_arm(researcher, as_user):
    study = factories.make_study(researcher=researcher, n_items=3)
    reference = System.objects.filter(arms__study=study).first()
    System.objects.filter(pk=reference.pk).update(kind=System.Kind.REFERENCE)
    for row in study.study_items.select_related("item"):
        Item.objects.filter(pk=row.item_id).update(reference="听起来你很难过。")
    factories.open_for_rating(study, by=researcher)
    rate(study, varied)
    count_texts(dataset=study.study_items.first().item.dataset)
    report = study_report(study)
    assert not report.sections.get("texts")
    assert "Text metrics appear with the unblinding" in page_of(as_user(researcher), study)
    unblind(study, researcher)
    report = study_report(study)
    shown = {row.stratum["system"] for row in report.rows("texts")}
    code = study.arms.get(system=reference).code
    assert shown == set("ABCD") - {code}  # it is what the others are compared with
    assert "Text metrics appear with" not in page_of(as_user(researcher), study)


def test_the_papers_figures_stand_beside_ours_once_systems_are_named(researcher, as_user):
    dataset = factories.make_dataset(name="SMILECHAT")
    ImportRecord.objects.create(
        kind="items", dataset=dataset, file_name="a.zip", file_sha256="0", options_sha256="0",
        options={"format": "smilechat"},
    )  # fmt: skip
    study = factories.make_study(researcher=researcher, dataset=dataset)
    system = System.objects.filter(arms__study=study).first()
    System.objects.filter(pk=system.pk).update(slug="soulchat", name="SoulChat")
    factories.open_for_rating(study, by=researcher)
    rate(study, lambda p, d: 1)
    blind = {str(cell.text) for row in paper_table(study_report(study)).rows for cell in row}
    assert "1.90" not in blind
    unblind(study, researcher)
    rows = [row for row in paper_table(study_report(study)).rows if row[1].arm.system_slug == "soulchat"]
    ours, theirs, difference = ([str(c.text) if c.text is not None else c.value for c in row] for row in rows)
    empathy = [column.key for column in paper_table(study_report(study)).columns].index("empathy")
    assert (ours[empathy], theirs[empathy], difference[empathy]) == (1.0, "1.90", "-0.90")  # table 1, SMILECHAT
    assert theirs[3:10] == ["35.40", "21.39", "13.77", "9.02", "32.64", "9.17", "21.10"]
    assert "-0.90" in page_of(as_user(researcher), study)
    kappas = {str(row[0].text): row for row in kappa_table(study_report(study)).rows}
    safety = kappas["Safety"]  # everyone gave 1, as in the paper
    assert (safety[1].value, str(safety[1].small), safety[2].text) == (1.0, "by convention", "1")


def test_the_methods_paragraph_claims_only_what_was_done(open_study, researcher):
    assert methods_paragraph(study_report(open_study), "en") == ""
    rate(open_study, varied)
    english, chinese = (methods_paragraph(study_report(open_study), code) for code in ("en", "zh"))
    assert "4 systems answered 4 items" in english
    assert "BLEU" not in english  # nothing has a reference here
    assert "no item has a reference" in paper_table(study_report(open_study)).remark
    assert "frozen" not in english
    assert "100 resamples" in english  # as the settings of the tests say
    assert "4 个系统回答了 4 个条目" in chinese
    assert "{" not in english + chinese


def test_every_reason_and_every_note_has_its_words():
    assert set(get_args(Reason)) == set(REASONS)
    assert len(set(MARKS.values())) == len(MARKS) == len(NOTES)
