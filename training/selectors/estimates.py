"""estimate: what a rewriting will take, before it is launched: tokens, time, money, and on what each guess rests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from statistics import fmean
from typing import Any

from annotation.models import System
from jobs.ledger import OVER
from models_runtime.endpoints import budget
from models_runtime.endpoints.values import Usage
from models_runtime.runtimes import EndpointSettings, Settings
from models_runtime.selectors.estimates import Money
from training.corpus.rewriting import Checks, Question, Style, messages
from training.models import Rewriting

AT_ONCE = 500  # questions whose prompts are held at one time
TAIL_BYTES = 1024**2  # of a file of attempts: some hundred of them
USUAL_TURN_TOKENS = 80  # mean characters of a turn in 4,000 dialogues of SMILECHAT, which were written in this way


@dataclass(frozen=True)
class Estimate:
    """n_texts: likely to be asked for, refused ones included.  tokens_in, tokens_out: of all of them.

    is_measured: tries and lengths of texts are those of the system's latest rewriting; otherwise each question is asked
    once, and a dialogue has rounds halfway between the bounds and turns of the usual length.
    seconds: by the speed of that rewriting's last job; None where there was none.
    """

    n_questions: int
    n_texts: int
    tokens_in: int
    tokens_out: int
    is_measured: bool
    seconds: float | None
    money: Money | None


def estimate(
    questions: Sequence[Question], *, system: System, settings: Settings, style: Style, checks: Checks, n_tries: int
) -> Estimate:
    """settings: as they will be at the start, with room for a whole dialogue."""
    past = Rewriting.objects.filter(system=system, job__state__in=OVER, n_done__gt=0).select_related("job").first()
    lengths = list(_lengths(past)) if past else []
    tries = min(sum(past.counts.values()) / past.n_done, n_tries) if past and lengths else 1.0
    rounds = (checks.least_rounds + checks.most_rounds) / 2
    per_text = fmean(lengths) if lengths else 2 * rounds * USUAL_TURN_TOKENS
    limit = settings.max_new_tokens or round(per_text)
    per_text = min(per_text, limit)
    prompt, most = 0, Decimal(0)
    price = settings.price if isinstance(settings, EndpointSettings) else None
    for start in range(0, len(questions), AT_ONCE):
        asked = [messages(style, checks, question) for question in questions[start : start + AT_ONCE]]
        prompt += sum(map(budget.likely_prompt_tokens, asked))
        if price is not None:
            worst = budget.estimate(asked, price, usual_new_tokens=0, max_new_tokens=limit).worst_cost
            most = budget.total([most, *[worst] * n_tries])
    tokens_in, tokens_out = round(prompt * tries), round(len(questions) * tries * per_text)
    money = None
    if price is not None:
        money = Money(price.currency, price.of(Usage(tokens_in, tokens_out)), most, price.since.isoformat())
    return Estimate(
        n_questions=len(questions),
        n_texts=round(len(questions) * tries),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        is_measured=bool(lengths),
        seconds=_seconds(past, len(questions)) if past else None,
        money=money,
    )


def _lengths(past: Rewriting) -> Iterator[int]:
    """Tokens of the latest texts, as far as who wrote them said so."""
    for row in _tail(past.folder / "attempts.jsonl"):
        provenance = row.get("provenance") or {}
        found = (provenance.get("usage") or {}).get("completion_tokens", provenance.get("tokens_out"))
        if isinstance(found, int):
            yield found


def _tail(path: Path) -> list[dict[str, Any]]:
    """The last whole rows of a file that may be large, or gone."""
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, 2) - TAIL_BYTES)
            file.seek(start)
            lines = file.read().split(b"\n")
        return [json.loads(line) for line in lines[1 if start else 0 : -1]]
    except (OSError, ValueError):
        return []


def _seconds(past: Rewriting, n_questions: int) -> float | None:
    """At the pace of its last job, tries included; None if nothing was counted."""
    job = past.job
    if job is None or job.counted_since is None or job.finished_at is None or job.counted_from is None:
        return None
    n = job.n_done - job.counted_from
    return (job.finished_at - job.counted_since).total_seconds() / n * n_questions if n > 0 else None
