"""open_study: from a draft to who rates what, in one transaction.  design_spec: what the design is drawn from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotation.design.blinding import arm_codes
from annotation.design.compile import Design, DesignSpec, compile_design
from annotation.design.disclosure import mask, scan
from annotation.design.ordering import williams_sequences
from annotation.errors import NotReady, StudyFrozen
from annotation.models import (
    Arm,
    Assignment,
    Member,
    Placement,
    Response,
    Study,
    StudyItem,
    StudyResponse,
    System,
    User,
)
from annotation.services.audit import record
from annotation.services.systems import ensure_reference_responses

ROWS_PER_STATEMENT = 1000
# Streams of the study's seed, apart from those the design spawns for itself.
_ARM_STREAM, _DIMENSION_STREAM = 101, 102


@dataclass(frozen=True)
class Parts:
    """The counted parts of a study, each in the order in which the design counts them."""

    items: list[StudyItem]
    arms: list[Arm]
    raters: list[Member]


def parts(study: Study) -> Parts:
    """Items by number, arms by creation, rater seats by number."""
    return Parts(
        items=list(study.study_items.select_related("item").order_by("number")),
        arms=list(study.arms.select_related("system").order_by("id")),
        raters=list(study.members.raters().active()),
    )


def design_spec(study: Study, these: Parts | None = None) -> DesignSpec:
    """What the design of this study is drawn from. Raises NotReady if a part is missing."""
    these = these or parts(study)
    n_raters = len(these.raters)
    if not these.items:
        raise NotReady(_("The study has no items yet. Draw a sample first."))
    if not these.arms:
        raise NotReady(_("The study has no systems yet. Choose the systems to compare."))
    if n_raters < study.raters_per_item:
        raise NotReady(
            _("Each item needs %(needed)s raters, but the study has %(present)s. Add raters or lower the number.")
            % {"needed": study.raters_per_item, "present": n_raters}
        )
    datasets = {pk: index for index, pk in enumerate(sorted({i.item.dataset_id for i in these.items}))}
    return DesignSpec(
        n_items=len(these.items),
        n_systems=len(these.arms),
        n_raters=n_raters,
        raters_per_item=study.raters_per_item,
        seed=study.seed,
        presentation="interleaved" if study.presentation == Study.Presentation.INTERLEAVED else "blocked",
        min_gap=study.min_gap,
        repeat_share=float(study.repeat_percent) / 100,
        item_groups=tuple(datasets[i.item.dataset_id] for i in these.items),
        is_sensitive=tuple(bool(i.item.risks) for i in these.items),
    )


@transaction.atomic
def open_study(*, study: Study, by: User | None) -> Study:
    """Draw the design, fix every text, write every placement, and open the study for rating.

    Raises StudyFrozen if it was opened before, NotReady if something is missing; then nothing has changed.
    """
    study = Study.objects.select_for_update().get(pk=study.pk)
    if not study.is_draft:
        raise StudyFrozen(_("The study has been opened already."))
    these = parts(study)
    design_spec(study, these)  # the cheap checks first
    if any(arm.system.kind == System.Kind.REFERENCE for arm in these.arms):
        ensure_reference_responses([study_item.item for study_item in these.items])
    responses = _responses(these)
    these, responses, n_dropped = _apply_drop(study, these, responses)
    shown, n_masked = _fix_texts(study, these, responses)
    _draw_arm_codes(study, these.arms)
    design = _compile(design_spec(study, these))
    n_placements = _write_design(design, these, shown)
    _write_rater_rows(study, these.raters, n_placements)

    study.state = Study.State.OPEN
    study.opened_at = timezone.now()
    study.n_masked, study.n_dropped = n_masked, n_dropped
    study.design_hash = _digest(design, shown)
    study.save()
    record(
        "study.opened",
        by=by,
        study=study,
        seed=study.seed,
        design_hash=study.design_hash,
        n_items=len(these.items),
        n_systems=len(these.arms),
        n_raters=len(these.raters),
        n_placements=len(design),
        n_masked=n_masked,
        n_dropped=n_dropped,
    )
    return study


def _compile(spec: DesignSpec) -> Design:
    try:
        return compile_design(spec)
    except ValueError as error:
        raise NotReady(str(error)) from error


def _responses(these: Parts) -> dict[tuple[int, int], Response]:
    """(item id, system id) ► response. Raises NotReady that counts what is missing, system by system."""
    found = {
        (response.item_id, response.system_id): response
        for response in Response.objects.first_of_each().filter(
            system__in=[arm.system_id for arm in these.arms],
            item__study_items__study=these.items[0].study_id,
        )
    }
    gaps = []
    for arm in these.arms:
        missing = [i.item.key for i in these.items if (i.item_id, arm.system_id) not in found]
        if missing:
            gaps.append(
                ngettext(
                    "%(system)s lacks a response to %(count)s item (%(first)s)",
                    "%(system)s lacks responses to %(count)s items (the first is %(first)s)",
                    len(missing),
                )
                % {"system": arm.system.name, "count": len(missing), "first": missing[0]}
            )
    if gaps:
        raise NotReady(
            "; ".join(gaps) + ". " + _("Import the missing responses, or draw only items that all systems answered.")
        )
    return found


def _names(these: Parts) -> list[str]:
    return [name for arm in these.arms for name in (arm.system.name, *arm.system.aliases) if name]


def _apply_drop(
    study: Study, these: Parts, responses: dict[tuple[int, int], Response]
) -> tuple[Parts, dict[tuple[int, int], Response], int]:
    """Leave out items with a self-disclosing response, where the study says so."""
    if study.disclosure_policy != Study.DisclosurePolicy.DROP:
        return these, responses, 0
    names = _names(these)
    kept: list[StudyItem] = []
    dropped: list[StudyItem] = []
    for study_item in these.items:
        texts = (responses[study_item.item_id, arm.system_id].text for arm in these.arms)
        (dropped if any(scan(text, names) for text in texts) else kept).append(study_item)
    if not kept:
        raise NotReady(_("Every item has a response that names its author, so none is left. Choose “mask” or “keep”."))
    StudyItem.objects.filter(pk__in=[study_item.pk for study_item in dropped]).delete()
    return Parts(kept, these.arms, these.raters), responses, len(dropped)


def _fix_texts(
    study: Study, these: Parts, responses: dict[tuple[int, int], Response]
) -> tuple[dict[tuple[int, int], StudyResponse], int]:
    """(study item id, arm id) ► the text as this study shows it, stored; and how many were masked."""
    is_masking = study.disclosure_policy == Study.DisclosurePolicy.MASK
    names = _names(these)
    rows = []
    for study_item in these.items:
        for arm in these.arms:
            response = responses[study_item.item_id, arm.system_id]
            found = scan(response.text, names) if is_masking else ()
            rows.append(
                StudyResponse(
                    study_item=study_item,
                    arm=arm,
                    response=response,
                    text=mask(response.text, found) if found else response.text,
                    n_masks=len(found),
                )
            )
    StudyResponse.objects.bulk_create(rows, batch_size=ROWS_PER_STATEMENT)
    shown = {(row.study_item_id, row.arm_id): row for row in rows}
    return shown, sum(row.n_masks > 0 for row in rows)


def _draw_arm_codes(study: Study, arms: list[Arm]) -> None:
    for arm, code in zip(arms, arm_codes(len(arms), np.random.default_rng([study.seed, _ARM_STREAM])), strict=True):
        arm.code = code
    Arm.objects.bulk_update(arms, ["code"])


def _write_design(design: Design, these: Parts, shown: dict[tuple[int, int], StudyResponse]) -> dict[int, int]:
    """Write assignments and placements; returns how many placements each rater's seat got, by member id."""
    keys = dict.fromkeys(zip(design.rater.tolist(), design.item.tolist(), design.is_repeat.tolist(), strict=True))
    assignments = Assignment.objects.bulk_create(
        [
            Assignment(rater=these.raters[rater], study_item=these.items[item], is_repeat=is_repeat)
            for rater, item, is_repeat in keys
        ],
        batch_size=ROWS_PER_STATEMENT,
    )
    assignment_of = dict(zip(keys, assignments, strict=True))
    columns = (design.rater, design.item, design.is_repeat, design.system, design.slot, design.position)
    n_placements: dict[int, int] = {}
    rows: list[Placement] = []
    for rater, item, is_repeat, system, slot, position in zip(*(c.tolist() for c in columns), strict=True):
        member = these.raters[rater]
        rows.append(
            Placement(
                assignment=assignment_of[rater, item, is_repeat],
                rater=member,
                study_response=shown[these.items[item].pk, these.arms[system].pk],
                slot=slot,
                position=position,
                queue=position,
            )
        )
        n_placements[member.pk] = n_placements.get(member.pk, 0) + 1
        if len(rows) == ROWS_PER_STATEMENT:
            Placement.objects.bulk_create(rows)
            rows = []
    Placement.objects.bulk_create(rows)
    return n_placements


def _write_rater_rows(study: Study, raters: list[Member], n_placements: dict[int, int]) -> None:
    """Counters, and an order of dimensions that differs between raters: halo shrinks when orders differ."""
    keys = list(study.rubric.dimensions.order_by("order").values_list("key", flat=True))
    orders = williams_sequences(len(keys))
    orders = np.random.default_rng([study.seed, _DIMENSION_STREAM]).permutation(orders)
    for index, rater in enumerate(raters):
        rater.n_placements = n_placements.get(rater.pk, 0)
        rater.dimension_order = [keys[i] for i in orders[index % len(orders)].tolist()]
    Member.objects.bulk_update(raters, ["n_placements", "dimension_order"], batch_size=ROWS_PER_STATEMENT)


def _digest(design: Design, shown: dict[tuple[int, int], StudyResponse]) -> str:
    """SHA-256 over who rates what in which order, and over every text as shown."""
    digest = hashlib.sha256()
    for column in (design.rater, design.item, design.system, design.slot, design.position, design.is_repeat):
        digest.update(np.ascontiguousarray(column, dtype="<i8").tobytes())
    for row in shown.values():
        digest.update(hashlib.sha256(row.text.encode()).digest())
    return digest.hexdigest()
