"""decide, prepare_again: a person's verdicts about what cleaning held back, and a corpus that follows them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from django.core.files.base import ContentFile
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.formats.strict import BadText, check_text, clean_text
from annotation.models import User
from annotation.services.uploads import delete_upload, store_upload
from models_runtime.engine.spec import digest_of
from training.models import Corpus, ReviewCase
from training.services.corpora import UPLOADS, CorpusRefused, Order, launch_corpus

Verdict = ReviewCase.Verdict


class Decided(NamedTuple):
    """The case as it stands now, and whether that is what was asked for just now."""

    case: ReviewCase
    is_taken: bool


def decide(*, case: ReviewCase, verdict: str, seen: str, by: User, texts: Sequence[str] = ()) -> Decided:
    """Note a verdict, if the case still stands as the person saw it; of two at once the first one's counts.

    texts: of what is kept, one for each turn, where a person changed some; what was read stays in the row beside it.
    seen: `ReviewCase.stands`. The same verdict a second time changes nothing. Raises CorpusRefused for a verdict that
    there is not, and for texts that no corpus can hold.
    """
    if verdict not in Verdict.values:
        raise CorpusRefused(_("There is no such verdict."))
    mended = _mended(case, texts) if verdict == Verdict.KEEP and texts else []
    name = digest_of(mended) if mended else ""
    is_open = verdict == Verdict.OPEN
    seen_verdict, _colon, seen_name = seen.partition(":")
    there = ReviewCase.objects.filter(pk=case.pk, verdict=seen_verdict, mended_digest=seen_name)
    is_taken = there.exclude(verdict=verdict, mended_digest=name).update(
        verdict=verdict,
        mended=mended,
        mended_digest=name,
        decided_by=None if is_open else by,
        decided_at=None if is_open else timezone.now(),
    )
    now = ReviewCase.objects.select_related("decided_by").get(pk=case.pk)
    is_same = (now.verdict, now.mended_digest) == (verdict, name)
    return Decided(now, bool(is_taken) or (is_same and now.decided_by_id in (by.pk, None)))


def _mended(case: ReviewCase, texts: Sequence[str]) -> list[str]:
    """The texts as a corpus holds them; [] if none of them is another than it was. Raises CorpusRefused."""
    turns = case.turns
    if len(texts) != len(turns):
        raise CorpusRefused(_("The dialogue has another number of turns. Load the page again."))
    try:
        for text in texts:
            check_text(text)
    except BadText as error:
        raise CorpusRefused(_("A turn holds a character that cannot be kept.")) from error
    kept = [clean_text(text)[0] for text in texts]
    if not all(kept):
        raise CorpusRefused(_("A turn is empty. Write something in its place, or remove the dialogue."))
    return [] if kept == [text for _role, text in turns] else kept


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
            lines.setdefault(case.name, json.dumps(_line(case), ensure_ascii=False))
        source = source.reviewed
    return list(lines.values())


def _line(case: ReviewCase) -> dict[str, Any]:
    """Its line of the queue, with the verdict and the words as they are kept."""
    dialogue = dict(case.row["dialogue"])
    turns = [{"role": role, "content": text} for role, text in case.kept_turns]
    if dialogue.get("reference"):
        dialogue["reference"] = turns.pop()["content"]
    return {**case.row, "verdict": case.verdict, "dialogue": dialogue | {"turns": turns}}
