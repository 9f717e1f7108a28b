"""register_system, update_system, register_preset: what can be compared.  The counsellor's own reply as one of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from annotation.errors import DomainError, NotFound
from annotation.models import Dataset, Item, Response, System, User
from annotation.services.audit import record
from annotation.services.responses import EmptyResponse, build_response

MAX_ALIASES = 50
MAX_ALIAS_CHARACTERS = 100
ITEMS_PER_STATEMENT = 500


class SystemRefused(DomainError):
    """A system cannot be registered or changed like this."""

    code = "system_refused"


@dataclass(frozen=True)
class Preset:
    """A system of the paper as one button: names to look for in responses, not weights."""

    slug: str
    name: str
    aliases: tuple[str, ...]
    kind: str = System.Kind.STORED
    description: str = ""


# Chen et al. (2023), arXiv:2311.00273: table 1 compares the first four, its figures show the fifth.
PRESETS = (
    Preset("soulchat", "SoulChat", ("灵心", "灵心SoulChat", "Soul Chat", "甜心老师")),
    Preset("chatglm-6b", "ChatGLM-6B", ("ChatGLM", "ChatGLM6B", "GLM-6B", "智谱", "智谱AI", "清华大学 KEG")),
    Preset("mechat", "MeChat", ("Me Chat", "SMILE", "SmileChat")),
    Preset("chatgpt", "ChatGPT", ("GPT-3.5", "gpt-3.5-turbo", "GPT-4", "OpenAI")),
    Preset("sparkdesk", "SparkDesk", ("讯飞星火", "星火认知大模型", "科大讯飞", "iFLYTEK")),
    Preset("human-reference", "Human reference", (), System.Kind.REFERENCE),
)


@transaction.atomic
def register_system(
    *,
    slug: str,
    name: str,
    aliases: Iterable[str] = (),
    description: str = "",
    kind: str = System.Kind.STORED,
    is_demo: bool = False,
    by: User | None,
) -> System:
    """A new system. Raises SystemRefused if slug or name is taken or no good, or a second reference is asked for."""
    system = System(
        slug=slug.strip(),
        name=_one_line(name),
        aliases=clean_aliases(aliases),
        description=description.strip(),
        kind=kind,
        is_demo=is_demo,
    )
    _check(system)
    try:
        with transaction.atomic():
            system.save(force_insert=True)
    except IntegrityError as error:  # somebody else was faster
        raise SystemRefused(_("A system with this short name or name exists already.")) from error
    record("system.registered", by=by, system=system.pk, kind=kind)
    return system


@transaction.atomic
def update_system(
    *, system: System, name: str, aliases: Iterable[str] = (), description: str = "", by: User | None
) -> System:
    """Give a system another name, other aliases or words about it; its slug and kind stay."""
    system.name = _one_line(name)
    system.aliases = clean_aliases(aliases)
    system.description = description.strip()
    _check(system)
    system.save(update_fields=["name", "aliases", "description"])
    record("system.changed", by=by, system=system.pk)
    return system


def register_preset(*, slug: str, by: User | None) -> System:
    """The preset system of that slug, registered now or before. Raises NotFound if there is none."""
    preset = next((preset for preset in PRESETS if preset.slug == slug), None)
    if preset is None:
        raise NotFound(_("There is no such preset."))
    if preset.kind == System.Kind.REFERENCE:
        return reference_system(by=by)
    return System.objects.filter(slug=slug).first() or register_system(
        slug=preset.slug, name=preset.name, aliases=preset.aliases, description=preset.description, by=by
    )


def missing_presets() -> list[Preset]:
    """The presets that are not registered yet."""
    present = set(System.objects.values_list("slug", flat=True))
    has_reference = System.objects.filter(kind=System.Kind.REFERENCE).exists()
    return [
        preset
        for preset in PRESETS
        if preset.slug not in present and not (has_reference and preset.kind == System.Kind.REFERENCE)
    ]


def clean_aliases(aliases: Iterable[str]) -> list[str]:
    """The aliases without blanks and repetitions, in order."""
    return list(dict.fromkeys(alias for raw in aliases if (alias := _one_line(raw))))


def _one_line(text: str) -> str:
    return " ".join(text.replace("\x00", "").split())


def _check(system: System) -> None:
    if len(system.aliases) > MAX_ALIASES or any(len(alias) > MAX_ALIAS_CHARACTERS for alias in system.aliases):
        raise SystemRefused(
            _("A system has at most %(n)s aliases of at most %(length)s characters.")
            % {"n": MAX_ALIASES, "length": MAX_ALIAS_CHARACTERS}
        )
    try:
        system.full_clean(exclude=["aliases"])  # Django takes an empty list for a forgotten value
    except ValidationError as error:
        raise SystemRefused(" ".join(error.messages), fields=error.message_dict) from error


# --- The human reference --------------------------------------------------------------------------------


def reference_system(*, by: User | None = None) -> System:
    """The one system whose responses are the counsellors' own replies; registered on first use."""
    found = System.objects.filter(kind=System.Kind.REFERENCE).first()
    if found:
        return found
    preset = next(preset for preset in PRESETS if preset.kind == System.Kind.REFERENCE)
    return register_system(slug=preset.slug, name=preset.name, kind=preset.kind, by=by)


@transaction.atomic
def ensure_reference_responses(items: Iterable[Item] | Dataset) -> int:
    """Make the counsellor's own reply to each item a response of the reference system; how many were new.

    Items without a reply, or whose reply is empty once it is cleaned as every response is, get none.
    """
    if isinstance(items, Dataset):
        items = items.items.with_reference().iterator(chunk_size=ITEMS_PER_STATEMENT)
    system = reference_system()
    n_new = 0
    for some in _batches(items):
        have = set(Response.objects.filter(system=system, repeat=0, item__in=some).values_list("item_id", flat=True))
        fresh = []
        for item in some:
            if item.reference and item.pk not in have:
                try:
                    fresh.append(build_response(item_id=item.pk, system_id=system.pk, text=item.reference))
                except EmptyResponse:
                    continue
        Response.objects.bulk_create(fresh, batch_size=ITEMS_PER_STATEMENT)
        n_new += len(fresh)
    return n_new


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    waiting = iter(items)
    while some := list(islice(waiting, ITEMS_PER_STATEMENT)):
        yield some
