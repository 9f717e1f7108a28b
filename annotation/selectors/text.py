"""What text metrics rest on: the counts of a study's responses as tables, and how many responses are counted yet.

Everything here is by arm code. A reference arm is counted like any other: against itself it scores close to 100, so
whoever shows a study that is still blinded must not show its text scores by arm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from django.db.models import Count, QuerySet, Sum, Value
from django.db.models.functions import Coalesce, NullIf

from annotation.counting import cutting_hash, source, statistics, unpacked
from annotation.models import Arm, Dataset, Item, Response, Study, TextCounts
from metrics.ngrams import CountTable
from metrics.table import BoolArray, IntArray
from metrics.text import TextStatistics

ObjectArray = npt.NDArray[np.object_]


@dataclass(frozen=True)
class ArmTexts:
    """Some items of one dataset: a table of counts for each arm, all with the same rows in the same order.

    items: shape (N,), ids, rising;  clusters: shape (N,), equal where two items come from one dialogue;
    topics: shape (N,), "" where none is known.
    """

    items: IntArray
    clusters: IntArray
    topics: ObjectArray
    arms: Mapping[str, TextStatistics]

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class DatasetTexts:
    """One dataset of a study.

    all_items: every item with a reference that all arms have answered and that is counted for all of them.
    study_items: those among them that the study's raters see.
    """

    all_items: ArmTexts
    study_items: ArmTexts


@dataclass(frozen=True)
class CountingState:
    """How far the counts of a study's responses are. Equal states mean equal counts.

    n_counted: of the n_all responses of the study's systems to all items of its datasets, repeats left out.
    """

    n_counted: int
    n_all: int
    sum_of_ids: int  # a row that is counted anew gets a higher id than any before
    cutting: str

    @property
    def is_complete(self) -> bool:
        return self.n_counted == self.n_all

    def __str__(self) -> str:
        return f"{self.n_counted}-{self.n_all}-{self.sum_of_ids}-{self.cutting}"


def counting_state(study: Study) -> CountingState:
    """How many responses are counted, and a fingerprint of their counts, from two aggregates."""
    systems = list(study.arms.values_list("system_id", flat=True))
    items = Item.objects.filter(dataset__in=list(_datasets(study))).order_by().values("pk")
    n_all = Response.objects.first_of_each().filter(system__in=systems, item__in=items).count()
    counts = _current().filter(response__system__in=systems, response__item__in=items)
    told = counts.aggregate(n=Count("pk"), ids=Sum("pk"))
    return CountingState(told["n"], n_all, told["ids"] or 0, cutting_hash())


def text_statistics(study: Study) -> dict[str, DatasetTexts]:
    """The counts of each dataset of an opened study, by slug; nothing for a draft, whose arms have no codes yet.

    Out-of-date counts are left out, and so is every item that lacks counts of some arm: see `counting_state`.
    One query for each dataset, and one for each arm in it.
    """
    arms = list(study.arms.exclude(code=None).order_by("code"))
    if not arms:
        return {}
    chosen = np.fromiter(study.study_items.values_list("item_id", flat=True), np.int64)
    return {dataset.slug: _dataset_texts(dataset, arms, chosen) for dataset in _datasets(study)}


def _datasets(study: Study) -> QuerySet[Dataset]:
    return Dataset.objects.filter(pk__in=study.study_items.values("item__dataset")).order_by("slug")


def _current() -> QuerySet[TextCounts]:
    return TextCounts.objects.made_by(cutting_hash()).filter(response__repeat=0)


def _dataset_texts(dataset: Dataset, arms: list[Arm], chosen: IntArray) -> DatasetTexts:
    """chosen: ids of the study's items, of this dataset and others."""
    with_reference = (
        dataset.items.with_reference()
        .order_by("pk")
        .values_list("pk", "dialogue_key", "reference", Coalesce(NullIf("topic", Value("")), "topic_label"))
    )
    keys, dialogues, references, topics = zip(*with_reference, strict=True) if with_reference else ((), (), (), ())
    items = np.array(keys, dtype=np.int64)
    ids = dataset.items.order_by().values("pk")
    rows: dict[str, tuple[IntArray, CountTable]] = {}
    is_in = np.ones(len(items), dtype=np.bool_)
    for arm in arms:
        # `in` and not a join: SQLite then reads ids from an index, and never the rows that hold the dialogues.
        counts = _current().filter(response__system=arm.system_id, response__item__in=ids)
        found = list(counts.order_by("response__item_id").values_list("response__item_id", "values"))
        of_arm = np.array([item for item, _values in found], dtype=np.int64)
        rows[arm.code or ""] = of_arm, unpacked(values for _item, values in found)
        is_in &= np.isin(items, of_arm)
    topics_N = np.array(topics, dtype=object)
    clusters = np.unique(np.array(dialogues, dtype=object), return_inverse=True)[1].astype(np.int64)

    def those(is_wanted: BoolArray) -> ArmTexts:
        wanted = items[is_wanted]
        from_references = source(references[i] for i in np.flatnonzero(is_wanted))
        tables = {
            code: statistics(values[np.searchsorted(of_arm, wanted)], from_references)
            for code, (of_arm, values) in rows.items()
        }
        return ArmTexts(wanted, clusters[is_wanted], topics_N[is_wanted], tables)

    return DatasetTexts(those(is_in), those(is_in & np.isin(items, chosen)))
