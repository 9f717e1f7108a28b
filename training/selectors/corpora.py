"""What the pages on corpora read: how far they are, what was left out and why, what they are like."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from django.core.paginator import Page, Paginator
from django.db.models import Count, QuerySet
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.formats.dialogues import Turn
from annotation.selectors.jobs import JobPage, job_page
from jobs.models import Job
from training.corpus.cleaning import Rules, find
from training.corpus.prepare import EXAMPLES
from training.models import Corpus, ReviewCase

CASES_PER_PAGE = 50
N_TERMS_SHOWN = 200

# Reasons for which something is not in a corpus, or not as it was: of dialogues, then of samples.
_REASONS: Mapping[str, Promise] = {
    "n_broken": gettext_lazy("Broken records, passed over"),
    "n_empty_dialogues": gettext_lazy("Dialogues without any turn"),
    "n_duplicate_dialogues": gettext_lazy("Duplicate dialogues, kept once"),
    "n_held_out_dialogues": gettext_lazy("Dialogues that hold an item of a dataset here"),
    "n_dialogues_remove": gettext_lazy("Dialogues that cleaning removed"),
    "n_dialogues_undecided": gettext_lazy("Dialogues that wait for a person’s verdict"),
    "n_dialogues_without_samples": gettext_lazy("Dialogues without a sample"),
    "n_empty_targets": gettext_lazy("Counsellor turns without any token"),
    "n_targets_too_long": gettext_lazy("Samples left out: the target is too long"),
    "n_targets_cut": gettext_lazy("Targets that lost their end"),
    "n_contexts_too_long": gettext_lazy("Samples left out: the context is too long"),
    "n_contexts_cut": gettext_lazy("Contexts that lost their end"),
    "n_contexts_without_oldest_turns": gettext_lazy("Contexts that lost their oldest turns"),
    "n_mended_by_person": gettext_lazy("Kept by a person, in other words"),
    "n_kept_by_person": gettext_lazy("Kept by a person"),
    "n_removed_by_person": gettext_lazy("Removed by a person"),
}
_RULES: Mapping[str, Promise] = {
    "phone": gettext_lazy("Phone number"),
    "id_number": gettext_lazy("Identity number"),
    "email": gettext_lazy("E-mail address"),
    "wechat": gettext_lazy("WeChat account"),
    "qq": gettext_lazy("QQ number"),
    "name": gettext_lazy("Name of a person"),
    "near_duplicate": gettext_lazy("Near duplicate"),
    "person": gettext_lazy("A person’s verdict"),
}
_ACTIONS: Mapping[str, Promise] = {
    "remove": gettext_lazy("remove"),
    "review": gettext_lazy("review"),
    "mask": gettext_lazy("mask"),
}


class Reason(NamedTuple):
    """Why something is not in the corpus as it was: how often, and the first names."""

    label: str
    n: int
    names: Sequence[str]


class Part(NamedTuple):
    """Training or test, in numbers."""

    label: str
    about: Mapping[str, Any]

    @property
    def n_tokens(self) -> int:
        return int(self.about["n_context_tokens"]) + int(self.about["n_target_tokens"])


class Leaks(NamedTuple):
    """The newest comparison with the datasets here."""

    job: Job
    n: int
    named: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class CorpusPage:
    """One corpus with all that can be done with it."""

    corpus: Corpus
    job: JobPage | None
    parts: Sequence[Part]
    reasons: Sequence[Reason]
    rules: Sequence[Reason]
    examples: Sequence[Mapping[str, Any]]
    n_cases: int
    n_open: int
    leaks: Leaks | None

    @property
    def is_alive(self) -> bool:
        """Something may change without anybody's doing."""
        return bool(
            (self.job and not self.job.row.job.is_over and not self.corpus.is_ready)
            or (self.leaks and not self.leaks.job.is_over)
        )

    @property
    def can_remove(self) -> bool:
        return not self.corpus.is_ready and (self.job is None or self.job.row.job.is_over)


def corpora() -> QuerySet[Corpus]:
    """The newest first."""
    return Corpus.objects.select_related("job", "rewriting", "reviewed", "created_by").defer("statistics")


def corpus_page(corpus: Corpus) -> CorpusPage:
    card = corpus.card
    verdicts = dict(corpus.review_cases.order_by().values_list("verdict").annotate(n=Count("pk")))
    return CorpusPage(
        corpus=corpus,
        job=job_page(corpus.job) if corpus.job else None,
        parts=[Part(_("Training"), card["train"]), Part(_("Test"), card["test"])] if card else [],
        reasons=_reasons(card) if card else [],
        rules=_rules(card, corpus.statistics.get("removed", {})) if card else [],
        examples=examples_of(corpus.folder / EXAMPLES) if card else [],
        n_cases=sum(verdicts.values()),
        n_open=verdicts.get(ReviewCase.Verdict.OPEN, 0),
        leaks=_leaks(corpus),
    )


def _leaks(corpus: Corpus) -> Leaks | None:
    job = Job.objects.filter(kind="training.leaks", params__corpus_id=corpus.pk).order_by("-pk").first()
    return None if job is None else Leaks(job, job.result.get("n_leaks", 0), job.result.get("leaks", []))


def _reasons(card: Mapping[str, Any]) -> list[Reason]:
    counts = {**card["counts"], **(card["cleaning"] or {"counts": {}})["counts"]}
    counts["n_broken"] = sum(source["counts"].get("n_broken", 0) for source in card["sources"])
    named = {**card["named"], "n_broken": [_place(p) for source in card["sources"] for p in source["problems"]]}
    return [Reason(str(label), counts[key], named.get(key, ())) for key, label in _REASONS.items() if counts.get(key)]


def _place(problem: Mapping[str, Any]) -> str:
    return f"{problem['file']}: {problem['number']}" if problem["number"] is not None else str(problem["file"])


def _rules(card: Mapping[str, Any], removed: Mapping[str, Sequence[str]]) -> list[Reason]:
    """What cleaning found, by rule and by what was to be done about it."""
    found = []
    for key, n in (card["cleaning"] or {"counts": {}})["counts"].items():
        action, _sep, rule = key.removeprefix("n_").partition("_")
        if action in _ACTIONS and rule != "by_person":
            names = removed.get(rule, ()) if action == "remove" else ()
            found.append(Reason(f"{rule_name(rule)} ({_ACTIONS[action]})", n, names))
    return sorted(found, key=lambda reason: (-reason.n, reason.label))


def rule_name(rule: str) -> str:
    """A rule of cleaning in words."""
    if rule.startswith("string:"):
        return _("The string “%(string)s”") % {"string": rule.removeprefix("string:")}
    return str(_RULES.get(rule, rule))


def examples_of(path: Path, n: int = 5) -> list[dict[str, Any]]:
    """The first rows of a file of ours: turns, and the target; none if there is no such file."""
    try:
        with path.open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in islice(file, n)]
    except (OSError, ValueError):
        return []
    return [
        {
            "key": row["key"],
            "topic": row.get("topic", ""),
            "turns": [(turn["role"], turn["content"]) for turn in row["turns"]],
            "target": row.get("reference", ""),
        }
        for row in rows
    ]


# --- Dialogues that wait for a person ---------------------------------------------------------------------


class Marked(NamedTuple):
    """A piece of a text, and whether a rule found it."""

    text: str
    is_found: bool


@dataclass(frozen=True)
class CaseView:
    """A dialogue with what was found in it."""

    case: ReviewCase
    rules: Sequence[str]
    turns: Sequence[tuple[str, Sequence[Marked]]]  # role, text in pieces; as it is kept
    before: Sequence[tuple[str, str]]  # role, text as it was read; of turns that a person changed
    still: Sequence[str]  # what the rules find in the words of a person


@dataclass(frozen=True)
class ReviewPage:
    """The queue of a corpus: one case, how many are left, and what was decided."""

    shown: CaseView | None
    n_open: int
    n_kept: int
    n_mended: int  # of those kept
    n_removed: int
    decided: Page[ReviewCase]

    @property
    def n_cases(self) -> int:
        return self.n_open + self.n_kept + self.n_removed

    @property
    def n_decided(self) -> int:
        return self.n_kept + self.n_removed


def review_page(corpus: Corpus, *, name: str = "", page: str = "1") -> ReviewPage:
    """name: of the case to show; the next open one if there is no such case."""
    cases = corpus.review_cases.select_related("decided_by")
    counts = dict(cases.order_by().values_list("verdict").annotate(n=Count("pk")))
    shown = cases.filter(name=name).first() or cases.filter(verdict=ReviewCase.Verdict.OPEN).first()
    decided = cases.exclude(verdict=ReviewCase.Verdict.OPEN).order_by("-decided_at", "pk")
    return ReviewPage(
        shown=None if shown is None else case_view(shown),
        n_open=counts.get(ReviewCase.Verdict.OPEN, 0),
        n_kept=counts.get(ReviewCase.Verdict.KEEP, 0),
        n_mended=cases.exclude(mended_digest="").count(),
        n_removed=counts.get(ReviewCase.Verdict.REMOVE, 0),
        decided=Paginator(decided, CASES_PER_PAGE).get_page(page),
    )


def case_view(case: ReviewCase) -> CaseView:
    why, kept = case.row["why"], case.kept_turns
    found: dict[int, list[str]] = {}
    for hit in why:
        found.setdefault(hit["turn"], []).append(hit["found"])
    changed = [then for then, now in zip(case.turns, kept, strict=True) if then != now]
    return CaseView(
        case=case,
        rules=list(dict.fromkeys(rule_name(hit["rule"]) for hit in why)),
        turns=[(role, marked(text, found.get(number, []))) for number, (role, text) in enumerate(kept, 1)],
        before=changed,
        still=_still_found(case) if changed else [],
    )


def _still_found(case: ReviewCase) -> list[str]:
    """By the rules of its corpus; whoever keeps it has the last word."""
    rules = Rules.from_json((case.corpus.card.get("cleaning") or {}).get("rules", {}))
    hits = find([Turn(role, text) for role, text in case.kept_turns], rules)
    return list(dict.fromkeys(rule_name(hit.rule) for hit in hits))


def marked(text: str, found: Sequence[str]) -> list[Marked]:
    """The text in pieces; every place where one of `found` stands is a piece of its own."""
    places = [False] * len(text)
    for string in filter(None, found):
        start = text.find(string)
        while start >= 0:
            places[start : start + len(string)] = [True] * len(string)
            start = text.find(string, start + 1)
    pieces: list[Marked] = []
    for character, is_found in zip(text, places, strict=True):
        if pieces and pieces[-1].is_found == is_found:
            pieces[-1] = Marked(pieces[-1].text + character, is_found)
        else:
            pieces.append(Marked(character, is_found))
    return pieces
