"""What a rater does around rating: agree to take part, practise, withdraw, guess at the end."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.errors import DomainError, NotReady
from annotation.models import Member, PracticeAnswer
from annotation.services.audit import record
from annotation.services.rubrics import read_content

N_TO_PASS = 4  # of the six items of a set
N_SETS = 3  # after the last one a person decides

Step = Literal["consent", "practice", "wait", "rate", "done"]


@dataclass(frozen=True)
class PracticeItem:
    """One practice item in one language. `expected`, `tolerance` and `why` stay on the server until answered."""

    id: str
    turns: tuple[dict[str, str], ...]
    response: str
    expected: dict[str, int]
    tolerance: dict[str, int]
    why: dict[str, str]

    def is_within_tolerance(self, scores: dict[str, int]) -> bool:
        return all(abs(scores[key] - self.expected[key]) <= self.tolerance[key] for key in self.expected)


@lru_cache(maxsize=8)
def practice_items(number: int, language: str) -> tuple[PracticeItem, ...]:
    """The items of one practice set, in "zh" or "en"."""
    return tuple(
        PracticeItem(
            id=item["id"],
            turns=tuple(item["turns"][language]),
            response=item["response"][language],
            expected=item["expected"],
            tolerance=item["tolerance"],
            why={key: texts[language] for key, texts in item["why"].items()},
        )
        for item in read_content("practice_cehs_v1.json")["items"]
        if item["set"] == number
    )


def next_step(rater: Member) -> Step:
    """Where a rater goes now: consent, then practice (if the study has it), then rating; "wait" for the study."""
    study = rater.study
    if rater.consented_at is None:
        return "consent"
    if study.needs_practice and rater.practice_passed_at is None:
        return "practice"
    if study.is_draft:
        return "wait"
    if rater.withdrawn_at or study.is_closed or (rater.n_placements and rater.n_left == 0):
        return "done"
    return "rate" if study.is_open else "wait"


def consent_text(rater: Member, language: str) -> dict[str, Any]:
    """Title, body and ticks of the study's consent in "zh" or "en", its places filled in."""
    study = rater.study
    given = study.consent or read_content("consent_v1.json")

    def fill(text: str) -> str:
        return text.replace("{contact}", study.contact or "—").replace("{retention}", study.retention or "—")

    return {
        "title": fill(given["title"][language]),
        "body": [fill(paragraph) for paragraph in given["body"][language]],
        "sensitive_tick": fill(given["sensitive_tick"][language]),
        "agree_tick": fill(given["agree_tick"][language]),
    }


@transaction.atomic
def give_consent(*, rater: Member, language: str, is_ready_for_sensitive: bool) -> None:
    """Store when, in which language and to which words the rater agreed."""
    text = consent_text(rater, language)
    digest = hashlib.sha256(json.dumps(text, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
    Member.objects.filter(pk=rater.pk, consented_at=None).update(
        consented_at=timezone.now(),
        consent_hash=digest,
        consent_language=language,
        is_ready_for_sensitive=is_ready_for_sensitive,
    )
    record("rater.consented", by=rater.user, study=rater.study, rater=rater.code, text=digest, language=language)


@transaction.atomic
def answer_practice(*, rater: Member, item_id: str, scores: dict[str, int], language: str) -> PracticeAnswer:
    """Store one practice answer; after the sixth, pass the rater or open the next set.

    Raises NotReady if all sets are used up, DomainError if a criterion has no score.
    """
    rater = Member.objects.select_for_update().get(pk=rater.pk)
    if rater.practice_set > N_SETS:
        raise NotReady(_("All practice sets are used up. Please write to the study contact."))
    items = {item.id: item for item in practice_items(rater.practice_set, language)}
    if item_id not in items:
        raise DomainError(_("This practice item belongs to another set. Load the page again."))
    item = items[item_id]
    if set(scores) != set(item.expected):
        raise DomainError(_("Some criteria have no score yet."))
    answer, _is_new = PracticeAnswer.objects.get_or_create(
        member=rater,
        practice_set=rater.practice_set,
        item_id=item_id,
        defaults={"scores": scores, "is_within_tolerance": item.is_within_tolerance(scores)},
    )
    return answer


@transaction.atomic
def finish_practice(*, rater: Member, language: str) -> bool:
    """Whether the finished set is passed; if not, the next set opens. Raises NotReady before the last answer."""
    rater = Member.objects.select_for_update().get(pk=rater.pk)
    items = practice_items(rater.practice_set, language)
    answers = rater.practice_answers.filter(practice_set=rater.practice_set)
    if len(answers) < len(items):
        raise NotReady(_("Some practice items are still open."))
    n_right = sum(answer.is_within_tolerance for answer in answers)
    is_passed = n_right >= N_TO_PASS
    if is_passed:
        rater.practice_passed_at = timezone.now()
    else:
        rater.practice_set += 1
    rater.save(update_fields=["practice_passed_at", "practice_set"])
    record("rater.practised", by=rater.user, study=rater.study, rater=rater.code, n_right=n_right, is_passed=is_passed)
    return is_passed


@transaction.atomic
def withdraw(*, rater: Member) -> None:
    """The rater leaves the study. What is done stays and is paid; nothing more can be rated."""
    if Member.objects.filter(pk=rater.pk, withdrawn_at=None).update(withdrawn_at=timezone.now()):
        record("rater.withdrew", by=rater.user, study=rater.study, rater=rater.code, n_final=rater.n_final)


def store_guess(*, rater: Member, is_recognised: str, words: str) -> None:
    """The exit question: did the rater think they knew which responses came from one system, and what gave it away?

    The first answer stays: what comes after a look at the examples of each writer is no answer any more.
    """
    Member.objects.filter(pk=rater.pk, guess__isnull=True).update(
        guess={"recognised": is_recognised, "words": words[:2000], "at": timezone.now().isoformat()}
    )
