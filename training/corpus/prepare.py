"""From files to a folder that training reads, in one pass: read, clean, split, encode, store.

    train/  test/    a store each
    test.jsonl       the test's items as text, one per sample, to be imported as a dataset and answered by systems
    samples.jsonl    a few samples of the training as text, in the same form, for people to look at
    review.jsonl     dialogues that wait for a person, and why;  removed.jsonl: those that went, and why (if cleaned)
    statistics.json  topics, rounds, lengths and frequent words of the training dialogues
    beginnings.bin   16 bytes for each turn of the training dialogues: whether an item was learnt can be told later
    corpus.json      what came in, what went where, what was left out and why, and everything needed to do it again

Memory holds 16 bytes per dialogue to tell duplicates, 256 more to tell near duplicates, and one dialogue at a time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annotation.formats.source import Source, digest, stamp
from training.corpus import samples
from training.corpus.cleaning import Cleaner, Review, Rules, name_of, queue_line, removal_line
from training.corpus.duplicates import Signature, signature, stacked
from training.corpus.duplicates import copies as repeats
from training.corpus.errors import CorpusError, SourceRefused, StoreBroken
from training.corpus.formats import MAX_BROKEN, Dialogue, Reading, read_dialogues
from training.corpus.samples import Encoded, Limits
from training.corpus.split import HASH_BYTES, beginnings, check_share, is_test, opening
from training.corpus.statistics import Collector
from training.corpus.store import Store, StoreWriter, file_digest, whole_folder, write_json

if TYPE_CHECKING:  # it loads torch, and the web process reads corpora too
    from training.corpus.encoding import Encoder

FORMAT = 1
CARD, ITEMS, EXAMPLES, STATISTICS = "corpus.json", "test.jsonl", "samples.jsonl", "statistics.json"
BEGINNINGS = "beginnings.bin"
QUEUE, REMOVED = "review.jsonl", "removed.jsonl"
PARTS = ("train", "test")
MAX_NAMED = 50  # dialogues that are listed by name for one reason
N_EXAMPLES = 8

# progress(dialogues read, samples written); while near duplicates are looked for, no sample is written
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """What is asked of a corpus, beside files and model.

    test_share: expected part of the dialogues, drawn by `seed`.  held_out: `item_hash` of items that must not be
    learnt; a dialogue that holds one is left out of the training.  max_broken: records of a file.
    rules: of cleaning; None: the files are clean already.  review: what a person decided about an earlier queue.
    has_statistics: also count words and lengths.
    """

    limits: Limits
    test_share: float = 0.02
    seed: int = 1
    held_out: Set[bytes] = frozenset()
    max_broken: int = MAX_BROKEN
    rules: Rules | None = None
    review: Review = field(default_factory=Review)
    has_statistics: bool = True

    def __post_init__(self) -> None:
        check_share(self.test_share)


@dataclass
class _Tally:
    """Counts over all files, and the first names for each reason."""

    counts: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[str]] = field(default_factory=dict)

    def note(self, reason: str, dialogue: Dialogue) -> None:
        self.counts[reason] += 1
        names = self.named.setdefault(reason, [])
        if len(names) < MAX_NAMED:
            names.append(f"{dialogue.place.file}: {dialogue.key}")


def prepare(
    sources: Sequence[Source],
    folder: Path,
    *,
    encoder: Encoder,
    plan: Plan,
    on_progress: Progress = lambda _dialogues, _samples: None,
) -> dict[str, Any]:
    """Make the corpus folder, whole or not at all, and return its card.

    Raises CorpusError: SourceRefused, FolderTaken or DiskFull, or if no sample is left to train on.
    """
    tally = _Tally()
    cleaner = None
    with whole_folder(folder) as partial:
        if plan.rules is not None:
            copies = near_copies(
                sources, plan.rules.near_duplicate, max_broken=plan.max_broken, on_progress=on_progress
            )
            cleaner = Cleaner(plan.rules, plan.review, copies)
        with ExitStack() as stack:
            about = {"limits": samples.about(plan.limits), "family": encoder.family}
            writers = {
                part: stack.enter_context(
                    StoreWriter(
                        partial / part,
                        tokenizer_digest=encoder.digest,
                        suffix=encoder.suffix,
                        about=about | {"part": part},
                    )
                )
                for part in PARTS
            }
            items, examples = _Lines(stack, partial / ITEMS), _Lines(stack, partial / EXAMPLES)
            sieve = _Sieve(cleaner, stack, partial) if cleaner else None
            read: list[dict[str, Any]] = []
            n_dialogues: Counter[str] = Counter()
            keys: set[str] = set()
            collector = Collector()
            learnt = stack.enter_context((partial / BEGINNINGS).open("wb"))
            for part, dialogue, encoded, hashes in _encoded(sources, encoder, plan, sieve, tally, read):
                n_dialogues[part] += 1
                writers[part].add(encoded.ids, encoded.spans)
                if part == "test":
                    items.write(_rows(dialogue, encoded, keys))
                else:
                    learnt.write(b"".join(hashes))
                    if n_dialogues[part] <= N_EXAMPLES:
                        examples.write([*_rows(dialogue, encoded, set())][-1:])
                    if plan.has_statistics:
                        collector.add(dialogue)
                on_progress(tally.counts["n_dialogues_read"], sum(writer.n_samples for writer in writers.values()))
        if not writers["train"].n_samples:
            went = _in_words(tally.counts) or "the files hold no dialogue"
            raise CorpusError(f"No sample is left to train on; {went}")
        card = {
            "format": FORMAT,
            "sources": read,
            "family": encoder.family,
            "template": encoder.template.to_json(),
            "tokenizer_digest": encoder.digest,
            "limits": samples.about(plan.limits),
            "split": {"seed": plan.seed, "test_share": plan.test_share, "n_held_out": len(plan.held_out)},
            "cleaning": cleaner and _cleaning(cleaner),
            "counts": dict(sorted(tally.counts.items())),
            "named": tally.named,
            "beginnings": {"sha256": file_digest(partial / BEGINNINGS)},
            **{part: _part(partial / part, n_dialogues[part]) for part in PARTS},
        }
        if plan.has_statistics:
            write_json(partial / STATISTICS, collector.result().to_json())
        write_json(partial / CARD, card)
    return card


def near_copies(
    sources: Sequence[Source], threshold: float | None, *, max_broken: int, on_progress: Progress = lambda _n, _m: None
) -> frozenset[str]:
    """`name_of` each whole dialogue that nearly repeats an earlier one; a reading of all files by itself."""
    if threshold is None:
        return frozenset()
    signatures: dict[str, Signature] = {}
    n_read = 0
    for source in sources:
        for dialogue in read_dialogues(source, Reading(), max_broken=max_broken):
            n_read += 1
            on_progress(n_read, 0)
            if dialogue.turns and not dialogue.first_target:  # items of one dialogue repeat each other as they should
                signatures.setdefault(name_of(dialogue.turns), signature(dialogue.turns))
    names = list(signatures)
    return frozenset(names[row] for row in repeats(stacked(signatures.values()), threshold))


def learnt_among(folder: Path, hashes: Set[bytes]) -> set[bytes]:
    """Those of the items' hashes (`item_hash`) whose dialogues are in the training part of a corpus folder.

    Raises StoreBroken if what it was told by is not what was written; CorpusError for a folder of before it was kept.
    """
    path = folder / BEGINNINGS
    try:
        written = json.loads((folder / CARD).read_text(encoding="utf-8")).get("beginnings")
        if written is None:
            raise CorpusError(f"{folder} does not tell which dialogues it learns from; prepare the corpus again")
        if file_digest(path) != written["sha256"]:
            raise StoreBroken(f"{path} was changed since it was written; prepare the corpus again")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise StoreBroken(f"{folder} cannot be read ({error}); prepare the corpus again") from error
    every = (data[start : start + HASH_BYTES] for start in range(0, len(data), HASH_BYTES))
    return {one for one in every if one in hashes}


class _Lines:
    """A file of JSON lines that is closed with the stack."""

    def __init__(self, stack: ExitStack, path: Path) -> None:
        self._file = stack.enter_context(path.open("w", encoding="utf-8"))

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        self._file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


class _Sieve:
    """The cleaner, and the files where what it holds back is written."""

    def __init__(self, cleaner: Cleaner, stack: ExitStack, folder: Path) -> None:
        self._cleaner = cleaner
        self._queue, self._removed = _Lines(stack, folder / QUEUE), _Lines(stack, folder / REMOVED)

    def passed(self, dialogue: Dialogue) -> Dialogue | None:
        """The dialogue as it is kept; None if it is not."""
        decision = self._cleaner.decide(dialogue)
        if decision.verdict == "keep":
            return decision.dialogue
        if decision.verdict == "remove":
            self._removed.write([removal_line(decision)])
        else:
            self._queue.write([queue_line(decision)])
        return None


def _cleaning(cleaner: Cleaner) -> dict[str, Any]:
    return {"rules": cleaner.rules.to_json(), "counts": dict(sorted(cleaner.counts.items()))}


def _encoded(
    sources: Sequence[Source],
    encoder: Encoder,
    plan: Plan,
    sieve: _Sieve | None,
    tally: _Tally,
    read: list[dict[str, Any]],
) -> Iterator[tuple[str, Dialogue, Encoded, list[bytes]]]:
    """Dialogues with at least one sample, the part they belong to, and their `beginnings` as they were read.

    `read` gets an entry for each finished file.
    """
    seen: set[bytes] = set()
    for number, source in enumerate(sources, 1):
        reading = Reading()
        before = stamp(source) if source.path.exists() else None
        for as_read in read_dialogues(source, reading, max_broken=plan.max_broken):
            tally.counts["n_dialogues_read"] += 1
            dialogue = as_read
            if len(sources) > 1:  # releases number their dialogues from 0, each for itself
                dialogue = as_read._replace(key=f"{number}-{as_read.key}", group=f"{number}-{as_read.group}")
            hashes = beginnings(dialogue.turns)
            if not hashes or hashes[-1] in seen:
                tally.note("n_duplicate_dialogues" if hashes else "n_empty_dialogues", dialogue)
                continue
            seen.add(hashes[-1])
            # Before anything is masked or mended: rules of cleaning move nothing to the other part, and hide no item.
            part = (
                "test" if is_test(opening(dialogue.turns, hashes), seed=plan.seed, share=plan.test_share) else "train"
            )
            if part == "train" and not plan.held_out.isdisjoint(hashes):
                tally.note("n_held_out_dialogues", dialogue)
                continue
            if sieve:
                passed = sieve.passed(dialogue)
                if passed is None:
                    tally.counts["n_dialogues_cleaned_out"] += 1
                    continue
                dialogue = passed
            encoded = samples.encode(dialogue, encoder, plan.limits)
            tally.counts.update(encoded.counts)
            if encoded.spans:
                yield part, dialogue, encoded, hashes
            else:
                tally.note("n_dialogues_without_samples", dialogue)
        if stamp(source) != before:
            raise SourceRefused(f"{source.name} was changed while it was read; try again when it is complete", [], 0)
        read.append(
            {
                "name": source.name,
                "sha256": digest(source),
                "encoding": reading.encoding,
                "counts": dict(sorted(reading.counts.items())),
                "problems": [problem.to_json() for problem in reading.problems],
            }
        )


def _rows(dialogue: Dialogue, encoded: Encoded, keys: set[str]) -> Iterator[dict[str, Any]]:
    """The samples of a test dialogue as items that an import takes; "{dialogue}#2" is its second reply."""
    numbers = {index: number for number, index in enumerate(dialogue.targets, 1)}
    for index in encoded.turns:
        name = dialogue.key if dialogue.group != dialogue.key else f"{dialogue.key}#{numbers[index]}"
        key, n = name, 1
        while key in keys:  # a file may call two dialogues by one name
            n += 1
            key = f"{name}~{n}"
        keys.add(key)
        item = dialogue._replace(key=key, turns=dialogue.turns[: index + 1])
        yield item.to_row()


def _part(folder: Path, n_dialogues: int) -> dict[str, Any]:
    about = Store(folder, check="sizes").about
    names = ("n_samples", "n_context_tokens", "n_target_tokens", "longest_context", "longest_target", "content_hash")
    return {"n_dialogues": n_dialogues, **{name: about[name] for name in names}}


def _in_words(counts: Counter[str]) -> str:
    """Counts in one line, for a message."""
    return ", ".join(f"{name.removeprefix('n_').replace('_', ' ')}: {n}" for name, n in sorted(counts.items()) if n)
