"""What the pages on rewritings read: how far they are, what was refused and why, what leaves the site."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from django.db.models import QuerySet
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.models import System
from annotation.selectors.jobs import JobPage, job_page
from jobs.models import Job
from models_runtime.explanations import explain
from models_runtime.models import Runtime
from models_runtime.runtimes import BadSettings, EndpointSettings
from training.corpus.rewriting_run import ACCEPTED
from training.models import Corpus, Rewriting
from training.selectors.corpora import examples_of

State = Job.State

_REASONS: Mapping[str, Promise] = {
    "broken_character": gettext_lazy("It holds a character that is none."),
    "declined": gettext_lazy("The model declined."),
    "no_turns": gettext_lazy("There is no turn with one of the two labels."),
    "starts_with_counsellor": gettext_lazy("The counsellor speaks first."),
    "ends_with_client": gettext_lazy("The client speaks last."),
    "does_not_alternate": gettext_lazy("Somebody speaks twice in a row."),
    "empty_turn": gettext_lazy("A turn is empty."),
    "too_few_rounds": gettext_lazy("There are too few rounds."),
    "too_many_rounds": gettext_lazy("There are too many rounds."),
    "turn_too_long": gettext_lazy("A turn is too long."),
    "placeholder": gettext_lazy("A placeholder was left in it."),
    "cut_at_limit": gettext_lazy("It was cut at the limit of tokens."),
}


class Refusal(NamedTuple):
    """Why texts were not accepted, and how often."""

    code: str
    sentence: str
    n: int


@dataclass(frozen=True)
class RewritingPage:
    """One rewriting with all that can be done with it."""

    rewriting: Rewriting
    job: JobPage | None
    n_attempts: int
    refusals: Sequence[Refusal]
    currency: str
    host: str
    samples: Sequence[Mapping[str, Any]]
    corpora: QuerySet[Corpus]

    @property
    def is_alive(self) -> bool:
        return bool(self.job and not self.job.row.job.is_over)

    @property
    def percent(self) -> int:
        return 100 * self.rewriting.n_done // self.rewriting.n_questions if self.rewriting.n_questions else 0

    @property
    def is_paused(self) -> bool:
        return bool(self.job and self.job.row.job.state == State.CANCELLED)

    @property
    def can_resume(self) -> bool:
        return not self.is_alive and not (self.job and self.job.row.job.state == State.DONE)

    @property
    def can_ask_more(self) -> bool:
        return not self.is_alive and self.rewriting.n_accepted < self.rewriting.n_questions

    @property
    def is_over_budget(self) -> bool:
        return bool(self.job and self.job.row.job.error_class == "budget")


def rewritings() -> QuerySet[Rewriting]:
    """The newest first."""
    return Rewriting.objects.select_related("system", "job", "created_by")


def rewriting_page(rewriting: Rewriting) -> RewritingPage:
    settings = rewriting.value
    price = settings.price if isinstance(settings, EndpointSettings) else None
    refused = {code: n for code, n in rewriting.counts.items() if code != ACCEPTED}
    return RewritingPage(
        rewriting=rewriting,
        job=job_page(rewriting.job) if rewriting.job else None,
        n_attempts=sum(rewriting.counts.values()),
        refusals=[Refusal(code, _sentence(code), n) for code, n in sorted(refused.items(), key=lambda one: -one[1])],
        currency=price.currency if price else "",
        host=_far(settings.base_url) if isinstance(settings, EndpointSettings) else "",
        samples=examples_of(rewriting.dialogues_file, 3),
        corpora=Corpus.objects.filter(rewriting=rewriting),
    )


def _sentence(code: str) -> str:
    return str(_REASONS.get(code) or explain(code.removeprefix("endpoint_")))


def systems_that_write() -> list[tuple[System, str]]:
    """Every system that answers, with the host that would get the texts; "" where they stay here."""
    systems = System.objects.filter(runtime__isnull=False).order_by("name")
    return [(system, far_host(system)) for system in systems]


def far_host(system: System) -> str:
    """Where the texts would go that this system is asked about; "" if that is this machine or its own network."""
    runtime = Runtime.objects.filter(system=system).first()
    try:
        settings = runtime.value if runtime else None
    except BadSettings:
        return ""
    return _far(settings.base_url) if isinstance(settings, EndpointSettings) else ""


def _far(base_url: str) -> str:
    host = urlsplit(base_url).hostname or ""
    try:
        is_near = ipaddress.ip_address(host).is_private
    except ValueError:
        is_near = host == "localhost"
    return "" if is_near else host or _("an unknown host")
