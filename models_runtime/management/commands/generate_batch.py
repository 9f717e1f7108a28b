"""manage.py generate_batch: say what a batch will take, and launch it; workers do the rest."""

from __future__ import annotations

from argparse import ArgumentParser
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.urls import reverse
from django.utils.translation import override

from annotation import problems
from annotation.errors import DomainError
from annotation.management.importing import user_named
from annotation.models import Dataset, Study, System
from annotation.selectors.jobs import duration
from models_runtime.models import Runtime
from models_runtime.runtimes import BadSettings
from models_runtime.selectors.estimates import Estimate, estimate
from models_runtime.services.batches import Launch, Questions, launch_batch
from models_runtime.tasks import hint_batch


class Command(BaseCommand):
    help = "Let systems answer the items of a dataset or of a study in preparation, in the background."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--systems", required=True, metavar="SLUG,SLUG", help="who answers")
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--dataset", metavar="SLUG", help="answer its items")
        what.add_argument(
            "--study", type=UUID, metavar="ID", help="answer the items of a study in preparation; ID as in its URL"
        )
        parser.add_argument("--sample", type=int, metavar="N", help="draw so many items of the dataset")
        parser.add_argument("--sample-seed", type=int, default=1, metavar="S", help="of the draw (default: 1)")
        parser.add_argument("--repeats", type=int, default=1, metavar="N", help="responses to each item (default: 1)")
        parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the responses (default: 1)")
        parser.add_argument(
            "--limit",
            action="append",
            default=[],
            metavar="SLUG=AMOUNT",
            help="stop a priced system before it costs more, in the currency of its price",
        )
        parser.add_argument("--estimate", action="store_true", help="only say what it will take")
        parser.add_argument("--by", metavar="USERNAME", help="who does this, for the log of acts")

    @override("en")
    def handle(self, *args: Any, **options: Any) -> None:
        systems = [_system(slug.strip()) for slug in options["systems"].split(",") if slug.strip()]
        if options["repeats"] < 1:
            raise CommandError("--repeats must be 1 or more.")
        questions = _questions(options)
        limits = dict(_limit(text, systems) for text in options["limit"])
        try:
            ids = questions.item_ids()
            for system in systems:
                self.stdout.write(_told(estimate(system, ids, repeats=options["repeats"])))
            if options["estimate"]:
                return
            launch = Launch(systems, questions, options["repeats"], options["seed"], limits)
            with transaction.atomic():
                batch = launch_batch(launch, by=user_named(options["by"]))
                transaction.on_commit(partial(hint_batch, batch))
        except DomainError as error:
            raise CommandError(error.message) from error
        except (BadSettings, Runtime.DoesNotExist) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Launched: {reverse('batch_detail', args=[batch.public_id])}")


def _system(slug: str) -> System:
    found = System.objects.filter(slug=slug).select_related("runtime").first()
    if found is None:
        raise CommandError(f"There is no system {problems.plain(slug)}.")
    if not hasattr(found, "runtime"):
        raise CommandError(f"{found.name} has no model that answers. Open its page and say how it answers.")
    return found


def _questions(options: dict[str, Any]) -> Questions:
    if options["study"]:
        study = Study.objects.filter(public_id=options["study"]).first()
        if study is None:
            raise CommandError(f"There is no study {options['study']}.")
        return Questions(study=study)
    dataset = Dataset.objects.filter(slug=options["dataset"]).first()
    if dataset is None:
        raise CommandError(f"There is no dataset {problems.plain(options['dataset'])}.")
    return Questions(dataset=dataset, n=options["sample"], draw_seed=options["sample_seed"])


def _limit(text: str, systems: list[System]) -> tuple[int, Decimal]:
    slug, _, amount = text.partition("=")
    try:
        return next(system.pk for system in systems if system.slug == slug), Decimal(amount)
    except (StopIteration, InvalidOperation) as error:
        raise CommandError(f"--limit {problems.plain(text)}: give SLUG=AMOUNT for one of the systems.") from error


def _told(found: Estimate) -> str:
    basis = "as its latest responses" if found.is_measured else "a character a token, as long as the references"
    time = "time unknown" if found.seconds is None else f"in {duration(found.seconds)} (as {found.n_timed} took)"
    money = ""
    if found.money:
        money = f", about {found.money.likely:f} and at most {found.money.most:f} {found.money.currency}"
    return (
        f"{found.system.name}: {found.n_new} to be made, {found.n_there} there already; "
        f"{found.tokens_in} tokens read, {found.tokens_out} written ({basis}); {time}{money}"
    )
