"""decide, prepare_again: a person's verdicts about what cleaning held back, and a corpus that follows them."""

from __future__ import annotations

import json
import uuid
from typing import NamedTuple

from django.core.files.base import ContentFile
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.models import User
from annotation.services.uploads import delete_upload, store_upload
from training.models import Corpus, ReviewCase
from training.services.corpora import UPLOADS, CorpusRefused, Order, launch_corpus

Verdict = ReviewCase.Verdict


class Decided(NamedTuple):
    """The case as it stands now, and whether that is what was asked for just now."""

    case: ReviewCase
    is_taken: bool


def decide(*, case: ReviewCase, verdict: str, seen: str, by: User) -> Decided:
    """Note a verdict, if the case still stands as the person saw it; of two at once the first one's counts.

    The same verdict a second time changes nothing. Raises CorpusRefused for a verdict that there is not.
    """
    if verdict not in Verdict.values:
        raise CorpusRefused(_("There is no such verdict."))
    is_open = verdict == Verdict.OPEN
    changed = ReviewCase.objects.filter(pk=case.pk, verdict=seen).exclude(verdict=verdict)
    is_taken = changed.update(
        verdict=verdict, decided_by=None if is_open else by, decided_at=None if is_open else timezone.now()
    )
    now = ReviewCase.objects.select_related("decided_by").get(pk=case.pk)
    return Decided(now, bool(is_taken) or (now.verdict == verdict and now.decided_by_id in (by.pk, None)))


def prepare_again(*, corpus: Corpus, name: str, by: User | None) -> Corpus:
    """A new corpus from the same files under the same plan, with the verdicts there are now; the old one stays.

    Asked for twice under one name and with the same verdicts, it is the one that is there.
    The caller sends the hint. Raises CorpusRefused if the name is taken, or if nothing has been decided.
    """
    if corpus.path:
        raise CorpusRefused(_("The folder was made elsewhere. Prepare it again there, with --review."))
    lines = _verdicts(corpus)
    if not lines:
        raise CorpusRefused(_("Nothing has been decided yet. Keep or remove at least one dialogue first."))
    public_id = uuid.uuid5(corpus.public_id, json.dumps([name, sorted(lines)], ensure_ascii=False))
    there = Corpus.objects.filter(public_id=public_id).first()
    if there is not None:
        return there
    review = store_upload(ContentFile("".join(f"{line}\n" for line in lines).encode()), folder=UPLOADS)
    order = Order(
        name=name,
        weights=corpus.weights,
        plan=corpus.plan | {"review": review},
        sources=corpus.sources,
        rewriting=corpus.rewriting,
        reviewed=corpus,
        public_id=public_id,
    )
    try:
        made = launch_corpus(order, by=by)
    except BaseException:
        delete_upload(review, folder=UPLOADS)
        raise
    if made.plan.get("review") != review:  # the other of two presses was faster
        delete_upload(review, folder=UPLOADS)
    return made


def _verdicts(corpus: Corpus) -> list[str]:
    """Lines of a queue with every verdict of this corpus and of those it was reviewed from; newer ones stand."""
    lines: dict[str, str] = {}
    source: Corpus | None = corpus
    while source is not None:
        for case in source.review_cases.exclude(verdict=Verdict.OPEN).iterator():
            lines.setdefault(case.name, json.dumps(case.row | {"verdict": case.verdict}, ensure_ascii=False))
        source = source.reviewed
    return list(lines.values())
