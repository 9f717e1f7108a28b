"""estimate: what a batch will take, before it is launched: tokens, time, money, and on what each guess rests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from statistics import fmean

from django.db.models import Avg, Count, F, Q
from django.db.models.functions import Length

from annotation.models import Item, Response, System
from jobs.ledger import OVER
from models_runtime.endpoints import budget
from models_runtime.endpoints.batch import USUAL_NEW_TOKENS
from models_runtime.endpoints.values import Message
from models_runtime.engine.prompts import Turn, chat_messages
from models_runtime.models import BatchPart, Runtime
from models_runtime.runtimes import EndpointSettings, LocalSettings

RECENT = 200  # responses whose lengths stand for those to come
JOBS_TIMED = 5
AT_ONCE = 500


@dataclass(frozen=True)
class Money:
    """In `currency`. likely: with answers of the usual length; most: with every answer at its limit."""

    currency: str
    likely: Decimal
    most: Decimal
    since: str  # when somebody looked the price up

    @property
    def limit(self) -> Decimal:
        """What the form proposes: the most it can cost, rounded up to a hundredth."""
        return max(self.most.quantize(Decimal("0.01"), ROUND_UP), Decimal("0.01"))


@dataclass(frozen=True)
class Estimate:
    """One system's part. n_new: responses to be made; n_there: stored already, and kept.

    is_measured: the lengths are those of this system's latest responses; otherwise a character counts as a token, and
    an answer is as long as the reference replies.  seconds: by the speed of its latest jobs, as `n_timed`
    responses took; None where there were none.
    n_versions: under how many versions the stored ones were made, imported ones counting as one.
    """

    system: System
    n_new: int
    n_there: int
    tokens_in: int
    tokens_out: int
    is_measured: bool
    seconds: float | None
    n_timed: int
    money: Money | None
    n_versions: int


def estimate(system: System, item_ids: Sequence[int], *, repeats: int) -> Estimate:
    """Raises BadSettings if the system's runtime cannot be used, Runtime.DoesNotExist if it has none."""
    settings = Runtime.objects.get(system=system).value
    n_there, versions = 0, set()
    for some in _slices(item_ids):
        there = Response.objects.filter(system=system, repeat__lt=repeats, item__in=some).order_by()
        for digest, n in there.values_list("provenance__spec_digest").annotate(n=Count("pk")):
            versions.add(digest)
            n_there += n
    n_new = len(item_ids) * repeats - n_there
    seconds, n_timed = _seconds(system, n_new)
    per_item_in, per_item_out, is_measured = _lengths(system, item_ids, settings)
    return Estimate(
        system=system,
        n_new=n_new,
        n_there=n_there,
        tokens_in=round(per_item_in * n_new),
        tokens_out=round(per_item_out * n_new),
        is_measured=is_measured,
        seconds=seconds,
        n_timed=n_timed,
        money=_money(settings, system, item_ids, repeats, round(per_item_out)),
        n_versions=len(versions),
    )


def _lengths(
    system: System, item_ids: Sequence[int], settings: LocalSettings | EndpointSettings
) -> tuple[float, float, bool]:
    """Tokens of a prompt and of an answer, and whether they were measured."""
    recent = Response.objects.filter(system=system, provenance__tokens_out__isnull=False).order_by("-pk")[:RECENT]
    rows = recent.values_list("provenance__tokens_in", "provenance__tokens_out")
    past = [(n_in, n_out) for n_in, n_out in rows if isinstance(n_in, int) and isinstance(n_out, int)]
    if past:
        return fmean(n for n, _ in past), fmean(n for _, n in past), True
    items = Item.objects.filter(pk__in=item_ids[:: max(1, len(item_ids) // AT_ONCE)])  # some hundred of them will do
    found = items.aggregate(prompt=Avg("n_characters"), reply=Avg(Length("reference"), filter=~Q(reference="")))
    prompt, reply = found["prompt"] or 0.0, found["reply"] or float(USUAL_NEW_TOKENS)
    if isinstance(settings, LocalSettings):
        prompt = min(prompt, settings.decoding.max_input_tokens)
    return prompt, min(reply, settings.max_new_tokens or reply), False


def _seconds(system: System, n_new: int) -> tuple[float | None, int]:
    """Loading once, then the speed of its latest jobs, however they ended; and how many responses that rests on."""
    over = BatchPart.objects.filter(
        system=system, job__state__in=OVER, job__counted_since__isnull=False, job__n_done__gt=F("job__counted_from")
    )
    latest = over.order_by("-job__finished_at").select_related("job")[:JOBS_TIMED]
    loading, answering, n = [], 0.0, 0
    for job in (part.job for part in latest if part.job):
        assert job.started_at and job.counted_since and job.finished_at and job.counted_from is not None  # noqa: S101
        loading.append((job.counted_since - job.started_at).total_seconds())
        answering += (job.finished_at - job.counted_since).total_seconds()
        n += job.n_done - job.counted_from
    return (fmean(loading) + answering / n * n_new if n else None), n


def _money(
    settings: LocalSettings | EndpointSettings,
    system: System,
    item_ids: Sequence[int],
    repeats: int,
    usual_new_tokens: int,
) -> Money | None:
    if not isinstance(settings, EndpointSettings) or settings.price is None:
        return None
    likely = most = Decimal(0)
    for some in _slices(item_ids):
        n_there = dict(
            Response.objects.filter(system=system, item__in=some, repeat__lt=repeats)
            .order_by()
            .values_list("item")
            .annotate(n=Count("pk"))
        )
        dialogues = []
        for item in Item.objects.filter(pk__in=some).only("turns"):
            turns = [Turn(turn["role"], turn["text"]) for turn in item.turns]
            said = [Message(m["role"], m["content"]) for m in chat_messages(settings.template, turns)]
            dialogues += [said] * (repeats - n_there.get(item.pk, 0))
        found = budget.estimate(
            dialogues,
            settings.price,
            usual_new_tokens=usual_new_tokens,
            max_new_tokens=settings.max_new_tokens or usual_new_tokens,
        )
        likely, most = budget.total([likely, found.cost]), budget.total([most, found.worst_cost])
    return Money(settings.price.currency, likely, most, settings.price.since.isoformat())


def _slices(ids: Sequence[int]) -> Iterable[Sequence[int]]:
    return (ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE))
