"""BLEU-1..4, ROUGE-1/2/L, Distinct-1/2 and length: one table of counts per system, then protocols over that table.

A metric name without its protocol is not a number: on the same responses BLEU-4 runs from 1.1 to 5.3 with nothing
changed but tokens and smoothing. So a number here comes out of two steps. `text_statistics` cuts and counts once: per
pair of response and reference the n-gram matches, lengths, sizes of n-gram sets and longest common subsequences. A
`Protocol` is arithmetic on that table, and so are every mean, interval, test and breakdown. All scores are percent.

Presets: CHATGLM is what the P-tuning script of ChatGLM-6B computes, extended to BLEU-1..4, and our default; REFERENCE
is corpus BLEU as sacrebleu has it beside ROUGE with clipped counts; CHAR has characters throughout. Where a peer has
a quirk, the preset named after it has the quirk too, and its docstring says so.

A pair with a blank side (no token but white space) scores 0 and counts. A pair with a missing side (None) is left out
and counted under "missing". Pairs of one dialogue hang together: pass `clusters` for intervals and tests.

Shapes: N = pairs, K = columns of the table, S = sums, M = metrics, C = clusters, B = resamples.
"""

import hashlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from metrics import segmentation
from metrics.intervals import (
    N_BOOTSTRAP,
    NO_INTERVAL,
    Interval,
    Resamples,
    bootstrap_intervals,
    cluster_sums,
)
from metrics.ngrams import FOR_ROUGE, ORDERS, Block, CountTable, Cut, Text, columns
from metrics.results import Estimate, Reason, Signature
from metrics.segmentation import AS_IT_IS, Normalisation, Tokens
from metrics.table import BoolArray, FloatArray, IntArray

VERSION = 1
BLOCK = 1024  # pairs that are counted together: large enough for numpy, small enough for the processor's cache
DRAWS_AT_ONCE = 200_000  # clusters drawn before they are summed: what the processor's cache holds

Smoothing = Literal[
    "nltk-method0",
    "nltk-method1",
    "nltk-method2",
    "nltk-method3",
    "sacrebleu-none",
    "sacrebleu-floor",
    "sacrebleu-add-k",
    "sacrebleu-exp",
]
Aggregate = Literal["mean", "corpus"]
Counting = Literal["sets", "clipped"]
Progress = Callable[[int, int], None]
"""Called with the number of pairs done and the number of pairs in all."""

METRICS = (
    "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_1", "rouge_2", "rouge_l", "distinct_1", "distinct_2", "length",
)  # fmt: skip


class MixedSignatures(ValueError):
    """Numbers that were made in different ways were put side by side."""


# Protocols.


@dataclass(frozen=True)
class Protocol:
    """What turns counts into scores; dataclasses.replace makes a variant, and every signature names its settings.

    bleu_tokens: one of codepoints, characters, zh, words;  rouge_tokens: characters, words or rouge_chinese.
    smoothing: what stands in for a precision of 0, as the named function of nltk or sacrebleu does it. The two
        families differ where a response is shorter than n tokens: nltk puts 1 below the fraction, sacrebleu scores 0.
    aggregate: "mean" of the pairs' scores, or "corpus": the score of the summed counts.
    counting: n-gram "sets", where repetition counts once, or "clipped" counts.
    rouge_epsilon: added to precision + recall in F; with it, identical texts reach 0.999999995.
    """

    name: str
    bleu_tokens: Tokens
    smoothing: Smoothing
    bleu_aggregate: Aggregate
    rouge_tokens: Tokens
    counting: Counting
    rouge_epsilon: float
    rouge_aggregate: Aggregate

    def __post_init__(self) -> None:
        if ORDERS[self.bleu_tokens] < 4:
            raise ValueError(f"BLEU needs n-grams up to 4, {self.bleu_tokens} has them up to 2")
        if self.rouge_tokens not in FOR_ROUGE:
            raise ValueError(f"ROUGE is made of {', '.join(sorted(FOR_ROUGE))}, not of {self.rouge_tokens}")

    @property
    def tokens(self) -> tuple[Tokens, ...]:
        """What has to be counted for this protocol."""
        return tuple(dict.fromkeys((self.bleu_tokens, self.rouge_tokens)))

    @property
    def label(self) -> str:
        """The preset's name, or "name*" for a variant of it."""
        return self.name if PROTOCOLS.get(self.name) == self else f"{self.name}*"


CHATGLM = Protocol("chatglm", "codepoints", "nltk-method3", "mean", "rouge_chinese", "sets", 1e-8, "mean")
"""nltk's sentence BLEU of code points and rouge_chinese on jieba words, averaged over pairs.

Its quirks: blanks and line ends are tokens of BLEU; a line end after a sentence stop makes an empty word, which costs
numbered answers up to some points of ROUGE; identical texts of one to three characters stay far below BLEU-4 100. The
script itself knows only BLEU-4, rounds each pair to four decimals and stops at a blank response.
Source: THUDM/ChatGLM-6B, ptuning/main.py; hiyouga/LLaMA-Factory, train/sft/metric.py for blank sides.
"""
REFERENCE = Protocol("reference", "zh", "sacrebleu-exp", "corpus", "words", "clipped", 0.0, "mean")
"""sacrebleu's corpus BLEU with tokenize="zh"; ROUGE-N F1 with clipped counts and ROUGE-L F1 of the true longest common
subsequence, on jieba words, averaged over pairs.

Source: Post (2018), A Call for Clarity in Reporting BLEU Scores; Lin (2004), ROUGE.
"""
CHAR = Protocol("char", "characters", "sacrebleu-exp", "corpus", "characters", "clipped", 0.0, "mean")
"""As REFERENCE, with every character but white space as a token: sacrebleu's tokenize="char"; needs no dictionary."""
PROTOCOLS: Mapping[str, Protocol] = {p.name: p for p in (CHATGLM, REFERENCE, CHAR)}


def tokens_of(*protocols: Protocol) -> tuple[Tokens, ...]:
    """What has to be counted to serve all these protocols."""
    return tuple(dict.fromkeys(t for protocol in protocols for t in protocol.tokens))


# The table of counts.


@dataclass(frozen=True)
class TextStatistics:
    """One system's counts, a row per pair in the order given: all that any protocol needs.

    values: shape (N, K), integers;  columns: "<tokens>.<count>" and four flags.
    source: how texts were cut, and a hash of the references, as parts of a signature.
    """

    values: CountTable
    columns: tuple[str, ...]
    source: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != len(self.columns):
            raise ValueError(f"a table of shape {self.values.shape} for {len(self.columns)} columns")

    def __len__(self) -> int:
        return len(self.values)

    def column(self, name: str) -> CountTable:
        """One column, shape (N,)."""
        column: CountTable = self.values[:, self.columns.index(name)]
        return column

    def counts(self, tokens: Tokens, *names: str) -> FloatArray:
        """Counts of one kind of token, shape (N, len(names)). ValueError if they were not counted."""
        wanted = [f"{tokens}.{name}" for name in names]
        if lacking := [name for name in wanted if name not in self.columns]:
            raise ValueError(f"not counted: {', '.join(lacking)}; give References these tokens")
        return self.values[:, [self.columns.index(name) for name in wanted]].astype(np.float64)

    def rows(self, chosen: BoolArray | IntArray) -> "TextStatistics":
        """Some of the pairs, for instance those of one topic."""
        if chosen.dtype == np.bool_ and chosen.all():
            return self
        return TextStatistics(self.values[chosen], self.columns, self.source)

    @property
    def is_complete(self) -> BoolArray:
        """Shape (N,): pairs that have both sides, blank or not."""
        missing = self.column("hypothesis_missing") | self.column("reference_missing")
        is_complete: BoolArray = missing == 0
        return is_complete

    def n(self) -> dict[str, int]:
        """How many pairs are scored, and how many of them have a blank side; how many are missing a side."""
        complete = self.is_complete
        return {
            "pairs": int(complete.sum()),
            "blank_hypotheses": int(self.column("hypothesis_blank")[complete].sum()),
            "blank_references": int(self.column("reference_blank")[complete].sum()),
            "missing": int((~complete).sum()),
        }


# References, and the one pass over a system's responses.


def cutting(tokens: Iterable[Tokens], normalisation: Normalisation = AS_IT_IS) -> tuple[tuple[str, str], ...]:
    """How texts are cut, as parts of a signature: while these are the same, so are the counts of the same texts."""
    return (
        *((kind, segmentation.describe(kind)) for kind in tokens),
        ("nfkc", "yes" if normalisation.nfkc else "no"),
        ("punctuation", normalisation.punctuation),
    )


def source_of(
    references: Iterable[Text], tokens: Iterable[Tokens], normalisation: Normalisation = AS_IT_IS
) -> tuple[tuple[str, str], ...]:
    """How texts are cut, and a hash of these references in their order: the `source` of TextStatistics."""
    digest = hashlib.sha256()
    for text in references:
        raw = b"" if text is None else text.encode("utf-8", "surrogatepass")
        digest.update(f"{-1 if text is None else len(raw)}:".encode() + raw)
    return (*cutting(tokens, normalisation), ("references", digest.hexdigest()[:12]))


class References:
    """The references of a dataset, cut and sorted once for all systems.

    texts: one per item, None where an item has no reference.
    tokens: what to count; tokens_of(CHATGLM, REFERENCE) serves both protocols.

    keep: whether blocks stay in memory for the next system: about 6 KB per reference of 120 characters for CHATGLM, 17
        for all protocols. False keeps one block at a time, enough for one call of system_statistics.
    """

    def __init__(
        self,
        texts: Sequence[Text],
        *,
        tokens: Iterable[Tokens] = CHATGLM.tokens,
        normalisation: Normalisation = AS_IT_IS,
        block: int = BLOCK,
        keep: bool = True,
    ) -> None:
        self.texts = list(texts)
        self.tokens = tuple(dict.fromkeys(tokens))
        self.normalisation = normalisation
        self.block = block
        self.keep = keep
        self._blocks: dict[int, Block] = {}

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def source(self) -> tuple[tuple[str, str], ...]:
        """How texts are cut, and a hash of these references, as parts of a signature."""
        return source_of(self.texts, self.tokens, self.normalisation)

    def starts(self) -> range:
        """Where the blocks begin."""
        return range(0, len(self.texts), self.block)

    def count(self, start: int, hypotheses: Sequence[Text]) -> CountTable:
        """The rows of the block that begins at `start`; hypotheses: all of the system's, in the references' order."""
        stop = start + self.block
        if start not in self._blocks:
            if not self.keep:
                self._blocks.clear()
            self._blocks[start] = Block(self.texts[start:stop], self.tokens, self.normalisation)
        return self._blocks[start].count(hypotheses[start:stop])


def text_statistics(
    hypotheses: Sequence[Text], references: References, *, on_progress: Progress | None = None
) -> TextStatistics:
    """One system's table of counts: row i compares hypotheses[i] with reference i.

    ValueError unless there are as many hypotheses as references.
    """
    return system_statistics({"": hypotheses}, references, on_progress=on_progress)[""]


def system_statistics(
    hypotheses: Mapping[str, Sequence[Text]],
    references: References,
    *,
    processes: int = 1,
    pool: Executor | None = None,
    on_progress: Progress | None = None,
) -> dict[str, TextStatistics]:
    """The table of each system, with the work on the references shared and, if asked, several processes.

    hypotheses: system ► its texts in the references' order. The numbers do not depend on `processes`.
    pool: counting_pool(processes), for many calls in a row: each of its processes reads the dictionary but once.
    on_progress: called after every part with the references done, for all systems, and the number of references.
    """
    for system, texts in hypotheses.items():
        if len(texts) != len(references):
            raise ValueError(f"system {system!r} has {len(texts)} hypotheses for {len(references)} references")
    systems = list(hypotheses)
    parts: list[list[CountTable]] = []
    for done, tables in _parts([hypotheses[system] for system in systems], references, processes, pool):
        parts.append(tables)
        if on_progress is not None:
            on_progress(done, len(references))
    names, source = columns(references.tokens), references.source
    empty = np.zeros((0, len(names)), dtype=np.int32)
    return {
        system: TextStatistics(np.concatenate([empty, *(tables[i] for tables in parts)]), names, source)
        for i, system in enumerate(systems)
    }


def counting_pool(processes: int) -> ProcessPoolExecutor:
    """Processes for system_statistics; they end with the one that made them, however it ends."""
    # spawn, since a copy of a process that runs threads, as web and Celery workers do, may hang
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _parts(
    hypotheses: Sequence[Sequence[Text]], references: References, processes: int, pool: Executor | None
) -> Iterable[tuple[int, list[CountTable]]]:
    """Per part of the references, in order: how many are done, and the rows of each system."""
    n = len(references)
    if processes == 1:
        for start in references.starts():
            yield min(start + references.block, n), [references.count(start, texts) for texts in hypotheses]
        return
    size = references.block * max(1, -(-n // (references.block * processes * 4)))  # four parts for each process
    starts = range(0, n, size)
    slices = [(references.texts[s : s + size], [list(texts[s : s + size]) for texts in hypotheses]) for s in starts]
    work = partial(_count_part, references.tokens, references.normalisation, references.block)
    with nullcontext(pool) if pool else counting_pool(processes) as workers:
        for start, tables in zip(starts, workers.map(work, slices), strict=True):
            yield min(start + size, n), tables


def _count_part(
    tokens: tuple[Tokens, ...],
    normalisation: Normalisation,
    block: int,
    part: tuple[list[Text], list[list[Text]]],
) -> list[CountTable]:
    references = References(part[0], tokens=tokens, normalisation=normalisation, block=block, keep=False)
    rows = [[references.count(start, texts) for texts in part[1]] for start in references.starts()]
    return [np.concatenate(tables) for tables in zip(*rows, strict=True)]


# Protocols over the table.


class Sums(NamedTuple):
    """What to add up over pairs, shape (N, S), and the metrics of such sums: (..., S) ► (..., M), in percent."""

    per_pair: FloatArray
    value: Callable[[FloatArray], FloatArray]


def pair_scores(table: TextStatistics, protocol: Protocol = CHATGLM) -> FloatArray:
    """The score of each pair, shape (N, M), columns as in METRICS; NaN in the rows of pairs that miss a side.

    Percent, except length, which is in tokens. With corpus aggregation too, this is the score of each pair alone.
    """
    scores = np.column_stack([_bleu(_bleu_counts(table, protocol), protocol.smoothing),
                              _rouge(_rouge_counts(table, protocol), protocol.rouge_epsilon),
                              _distinct_and_length(table, protocol)])  # fmt: skip
    scores[~table.is_complete] = np.nan
    return scores


def _bleu_counts(table: TextStatistics, protocol: Protocol) -> FloatArray:
    """Shape (N, 10): matches and totals of orders 1 to 4, then the lengths of hypothesis and reference."""
    orders = np.arange(1, 5)
    lengths = table.counts(protocol.bleu_tokens, "hypothesis_length", "reference_length")
    matches = table.counts(protocol.bleu_tokens, *(f"match_{order}" for order in orders))
    least = 1 if protocol.smoothing.startswith("nltk") else 0  # nltk never divides by zero
    return np.column_stack([matches, np.maximum(lengths[:, :1] - orders + 1, least), lengths])


def _bleu(counts: FloatArray, smoothing: Smoothing) -> FloatArray:
    """BLEU-1 to BLEU-4 in percent, shape (..., 10) ► (..., 4): precisions up to n weigh the same.

    0 if no token matches. Source: Papineni et al. (2002); Chen & Cherry (2014) on smoothing; nltk 3.10.4
    bleu_score.SmoothingFunction and sacrebleu 2.6.0 BLEU.compute_bleu.
    """
    matches, totals, hyp, ref = counts[..., :4], counts[..., 4:8], counts[..., 8], counts[..., 9]
    is_zero = matches == 0
    if smoothing in ("nltk-method2", "sacrebleu-add-k"):
        added = np.array([0.0, 1.0, 1.0, 1.0])
        matches, totals = matches + added, totals + added
    elif smoothing in ("nltk-method1", "sacrebleu-floor"):
        matches = np.where(is_zero, 0.1, matches)
    elif smoothing in ("nltk-method3", "sacrebleu-exp"):
        matches = np.where(is_zero, 0.5 ** np.cumsum(is_zero, axis=-1), matches)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.where(totals > 0, matches / totals, 0.0))
        penalty = np.where(hyp >= ref, 1.0, np.exp(1 - ref / hyp))
        means = np.cumsum(logs, axis=-1) / np.arange(1, 5)
    bleu: FloatArray = np.where(is_zero[..., :1], 0.0, 100 * penalty[..., None] * np.exp(means))
    return bleu


def _rouge_counts(table: TextStatistics, protocol: Protocol) -> FloatArray:
    """Shape (N, 9): what both sides have, size of hypothesis, size of reference, for ROUGE-1, ROUGE-2 and ROUGE-L."""
    tokens = protocol.rouge_tokens
    lengths = table.counts(tokens, "hypothesis_length", "reference_length")
    columns = []
    for order in (1, 2):
        if protocol.counting == "sets":
            columns.append(table.counts(tokens, *(f"{of}_set_{order}" for of in ("both", "hypothesis", "reference"))))
        else:
            columns += [table.counts(tokens, f"match_{order}"), np.maximum(lengths - order + 1, 0)]
    return np.column_stack([*columns, table.counts(tokens, "lcs"), lengths])


def _rouge(counts: FloatArray, epsilon: float) -> FloatArray:
    """ROUGE-1, ROUGE-2 and ROUGE-L as F in percent, shape (..., 9) ► (..., 3); 0 where a side has no n-gram."""
    both, hypothesis, reference = counts[..., 0::3], counts[..., 1::3], counts[..., 2::3]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(hypothesis > 0, both / hypothesis, 0.0)
        recall = np.where(reference > 0, both / reference, 0.0)
        f = 2.0 * ((precision * recall) / (precision + recall + epsilon))
    rouge: FloatArray = np.where(both > 0, 100 * f, 0.0)
    return rouge


def _distinct_and_length(table: TextStatistics, protocol: Protocol) -> FloatArray:
    """Shape (N, 3): different tokens per token and pairs of neighbours per such pair, in percent; tokens of BLEU."""
    tokens = protocol.rouge_tokens
    lengths = table.counts(tokens, "hypothesis_length")
    sizes = table.counts(tokens, "hypothesis_set_1", "hypothesis_set_2")
    totals = np.maximum(lengths - np.arange(2), 1)
    return np.column_stack([100 * sizes / totals, table.counts(protocol.bleu_tokens, "hypothesis_length")])


def sums_of(table: TextStatistics, protocol: Protocol) -> Sums:
    """Per complete pair: a count of 1, then BLEU's sums, ROUGE's sums, Distinct and length."""
    table = table.rows(table.is_complete)
    bleu, rouge = _bleu_counts(table, protocol), _rouge_counts(table, protocol)
    is_mean_bleu, is_mean_rouge = protocol.bleu_aggregate == "mean", protocol.rouge_aggregate == "mean"
    if is_mean_bleu:
        bleu = _bleu(bleu, protocol.smoothing)
    if is_mean_rouge:
        rouge = _rouge(rouge, protocol.rouge_epsilon)
    split = 1 + bleu.shape[1]
    end = split + rouge.shape[1]

    def value(sums: FloatArray) -> FloatArray:
        n = np.maximum(sums[..., :1], 1)
        bleu_sums, rouge_sums = sums[..., 1:split], sums[..., split:end]
        return np.concatenate(
            [
                bleu_sums / n if is_mean_bleu else _bleu(bleu_sums, protocol.smoothing),
                rouge_sums / n if is_mean_rouge else _rouge(rouge_sums, protocol.rouge_epsilon),
                sums[..., end:] / n,
            ],
            axis=-1,
        )

    return Sums(np.column_stack([np.ones(len(table)), bleu, rouge, _distinct_and_length(table, protocol)]), value)


def text_scores(
    table: TextStatistics,
    protocol: Protocol = CHATGLM,
    *,
    clusters: IntArray | None = None,
    seed: int | None = None,
    n_bootstrap: int = N_BOOTSTRAP,
    confidence: float = 0.95,
) -> dict[str, Estimate]:
    """Every metric of one system: percent, except length, which is the mean number of BLEU's tokens.

    clusters: shape (N,), the dialogue of each pair; None: every pair by itself.
    seed: for a percentile interval by resampling dialogues; None: no interval.

    Distinct-1/2 are per response: they punish length less than Distinct over a corpus, see `corpus_distinct`.
    """
    sums = sums_of(table, protocol)
    n = table.n()
    interval_part: dict[str, object] = {}
    resamples = None
    if seed is not None and n["pairs"]:
        totals_CS = cluster_sums(sums.per_pair, clusters_of(table, clusters))
        resamples = resamples_of(totals_CS, np.random.default_rng(seed), n_bootstrap)
        n |= {"clusters": len(totals_CS), "resamples": n_bootstrap}
        interval_part = draw_settings(seed, n_bootstrap, confidence)
    values = sums.value(sums.per_pair.sum(axis=0))
    intervals = [Interval(None, None, NO_INTERVAL, 0, ())] * len(METRICS)
    if resamples is not None:
        intervals = bootstrap_intervals(resamples, sums.value, confidence=confidence)
    estimates = {}
    for metric, value, interval in zip(METRICS, values.tolist(), intervals, strict=True):
        signature = str(signature_of(metric, table, protocol, n["pairs"], interval_part))
        reason: Reason | None = None if n["pairs"] else "no_pairs"
        estimates[metric] = Estimate(
            None if reason else value,
            interval.low, interval.high, n, interval.method, signature, reason, interval.notes,
        )  # fmt: skip
    return estimates


def clusters_of(table: TextStatistics, clusters: IntArray | None) -> IntArray:
    """The cluster of each complete pair, numbered from 0 without gaps."""
    complete = table.is_complete
    if clusters is None:
        return np.arange(int(complete.sum()))
    if clusters.shape != (len(table),):
        raise ValueError(f"clusters of shape {clusters.shape} for {len(table)} pairs")
    numbered: IntArray = np.unique(clusters[complete], return_inverse=True)[1].astype(np.int64)
    return numbered


def draw_settings(seed: int, n_bootstrap: int, confidence: float) -> dict[str, object]:
    """How intervals are drawn, as parts of a signature."""
    return {
        "interval": "percentile-by-cluster", "confidence": confidence, "n_bootstrap": n_bootstrap, "seed": seed,
        "numpy": np.__version__,
    }  # fmt: skip


def signature_of(
    metric: str, table: TextStatistics, protocol: Protocol, n_pairs: int, more: Mapping[str, object]
) -> Signature:
    """How one metric of a table was made; more: further parts, such as how its interval is drawn."""
    source = dict(table.source)
    settings: dict[str, object] = {"protocol": protocol.label}
    if metric.startswith("bleu"):
        settings |= {"tokens": source[protocol.bleu_tokens], "order": metric[-1], "smoothing": protocol.smoothing}
        settings["aggregate"] = protocol.bleu_aggregate
    elif metric.startswith("rouge"):
        settings |= {"tokens": source[protocol.rouge_tokens], "score": "f1", "epsilon": protocol.rouge_epsilon}
        settings["counting"] = None if metric == "rouge_l" else protocol.counting
        settings["aggregate"] = protocol.rouge_aggregate
    else:
        tokens = protocol.bleu_tokens if metric == "length" else protocol.rouge_tokens
        settings |= {"tokens": source[tokens], "aggregate": "mean"}
    settings |= {key: source[key] for key in ("nfkc", "punctuation", "references")}
    scale = "tokens" if metric == "length" else "percent"
    settings |= {"blank": "zero", "missing": "left-out", "scale": scale, "n": n_pairs}
    return Signature.of(metric, VERSION, **settings, **more)


def refuse_mixed_signatures(estimates: Iterable[Estimate]) -> str:
    """The one signature that all these estimates share; MixedSignatures if they were not made in the same way."""
    signatures = sorted({estimate.signature for estimate in estimates})
    if not signatures:
        raise ValueError("there is nothing to compare")
    if len(signatures) > 1:
        parts = [set(signature.split("|")) for signature in signatures]
        common = set.intersection(*parts)
        different = "; ".join(" ".join(sorted(part - common)) for part in parts)
        raise MixedSignatures(f"these numbers were made in different ways: {different}")
    return signatures[0]


def resamples_of(sums_CS: FloatArray, rng: np.random.Generator, n_bootstrap: int) -> Resamples:
    """All clusters drawn with replacement. intervals.resample without its matrix of counts, which grows with pairs."""
    n_clusters = len(sums_CS)
    n_at_once = max(1, DRAWS_AT_ONCE // n_clusters)
    totals = [sums_CS.sum(axis=0, keepdims=True)]
    for begin in range(0, n_bootstrap, n_at_once):
        n = min(n_at_once, n_bootstrap - begin)
        drawn = rng.integers(0, n_clusters, (n, n_clusters)) + n_clusters * np.arange(n)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=n * n_clusters).reshape(n, n_clusters)
        totals.append(counts.astype(np.float64) @ sums_CS)
    every = np.arange(n_clusters)
    return Resamples(sums_CS, np.ones_like(every), every, np.zeros((0, n_clusters), np.int64), np.concatenate(totals))


# Distinct over a whole corpus: no sum over pairs, so it needs the texts.


def corpus_distinct(
    texts: Iterable[Text], order: int, *, tokens: Tokens = "words", normalisation: Normalisation = AS_IT_IS
) -> Estimate:
    """Distinct-n: different n-grams of all responses together, per n-gram, in percent.

    It falls as responses get longer or more numerous, so compare it only between systems with the same items.
    order: 1, 2, …;  texts: None is left out, a blank text adds nothing.

    Source: Li et al. (2016), A Diversity-Promoting Objective Function for Neural Conversation Models.
    """
    given = [text for text in texts if text is not None]
    side = Cut(given, normalisation, {}).side(tokens)
    ids = np.unique(side.symbols, return_inverse=True)[1].astype(np.int64)
    ends = np.repeat(np.cumsum(side.lengths), side.lengths)
    at, base = np.arange(len(ids)), int(ids.max(initial=0)) + 1
    numbers = np.zeros(len(ids), dtype=np.int64)
    for n in range(1, order + 1):
        is_inside = at + n <= ends[at]
        at, numbers = at[is_inside], numbers[is_inside]
        numbers = np.unique(numbers * base + ids[at + n - 1], return_inverse=True)[1].astype(np.int64)
    n_different = int(numbers.max(initial=-1)) + 1
    signature = Signature.of(
        f"distinct_{order}", VERSION, tokens=segmentation.describe(tokens), aggregate="corpus",
        nfkc="yes" if normalisation.nfkc else "no", punctuation=normalisation.punctuation, missing="left-out",
        scale="percent", n=len(given),
    )  # fmt: skip
    counts = {"responses": len(given), "n_grams": len(at), "different": n_different}
    value = 100 * n_different / len(at) if len(at) else None
    return Estimate(value, None, None, counts, NO_INTERVAL, str(signature), None if len(at) else "no_pairs")
