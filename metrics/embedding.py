"""How near a response is to its reference in meaning: BERTScore's arithmetic on vectors that come from outside.

Each token of one side is matched with the nearest token of the other. No network is in here, only what follows it;
models_runtime/engine/embedding.py makes the vectors from a local folder. Scores are percent. They lie close together,
and mean something only beside scores of the same encoder and layer, so the signature names both.

Policies as in metrics.text: a blank side scores 0 and counts, a missing side leaves the pair out.

Source: Zhang et al. (2020), BERTScore: Evaluating Text Generation with BERT; without idf weights and rescaling. On the
same vectors the numbers are those of bert_score 0.3.13 (its greedy_cos_idf), to the last digit of a float.

Shapes: N = pairs, T, U = tokens of the two sides, D = dimensions, M = METRICS.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metrics.intervals import (
    N_BOOTSTRAP,
    NO_INTERVAL,
    Interval,
    bootstrap_interval,
    cluster_sums,
    resample,
)
from metrics.ngrams import Text
from metrics.results import Estimate, Reason, Signature
from metrics.table import BoolArray, FloatArray, IntArray
from metrics.text import source_of

VERSION = 1
METRICS = ("embedding_precision", "embedding_recall", "embedding_f1")


class Vectors(NamedTuple):
    """One text as its encoder sees it.

    vectors_TD: one row per token, of any length but 0;  is_counted_T: False for the encoder's own tokens ([CLS],
    [SEP], …), which others may be matched with but which have no say themselves, as in the package bert_score.
    """

    vectors_TD: FloatArray
    is_counted_T: BoolArray


def greedy_match(hypothesis: Vectors, reference: Vectors) -> FloatArray:
    """Precision, recall and F1 of one pair in percent, shape (3,); 0 where a side has no token that counts.

    Precision is the mean cosine of the hypothesis' tokens with their nearest token of the reference, recall the same
    from the other side, F1 their harmonic mean; F1 is 0 unless both are above 0.
    """
    if not hypothesis.is_counted_T.any() or not reference.is_counted_T.any():
        return np.zeros(3)
    cosines_TU = _unit(hypothesis.vectors_TD) @ _unit(reference.vectors_TD).T
    precision = cosines_TU.max(axis=1)[hypothesis.is_counted_T].mean()
    recall = cosines_TU.max(axis=0)[reference.is_counted_T].mean()
    f1 = 2 * precision * recall / (precision + recall) if min(precision, recall) > 0 else 0.0
    return 100 * np.array([precision, recall, f1])


def _unit(vectors_TD: FloatArray) -> FloatArray:
    vectors_TD = vectors_TD.astype(np.float64)
    unit: FloatArray = vectors_TD / np.linalg.norm(vectors_TD, axis=1, keepdims=True)
    return unit


def embedding_scores(
    scores_NM: FloatArray,
    references: Sequence[Text],
    encoder: Mapping[str, str],
    *,
    clusters: IntArray | None = None,
    seed: int | None = None,
    n_bootstrap: int = N_BOOTSTRAP,
    confidence: float = 0.95,
) -> dict[str, Estimate]:
    """The means of one system over its pairs, in percent.

    scores_NM: a row of `greedy_match` per pair, NaN where a side is missing;  references: their texts, None if missing.
    encoder: what made the vectors, as parts of the signature.
    clusters: shape (N,), the dialogue of each pair; None: every pair by itself.
    seed: for a percentile interval by resampling dialogues; None: no interval.

    ValueError if the shapes do not fit.
    """
    if scores_NM.shape != (len(references), len(METRICS)):
        raise ValueError(f"scores of shape {scores_NM.shape} for {len(references)} references")
    complete: BoolArray = np.isfinite(scores_NM.sum(axis=1))
    sums_NS = np.column_stack([np.ones(int(complete.sum())), scores_NM[complete]])
    n = {"pairs": len(sums_NS), "missing": int((~complete).sum())}
    settings: dict[str, object] = {**encoder, "references": dict(source_of(references, ()))["references"]}
    settings |= {"aggregate": "mean", "idf": "no", "rescaled": "no", "blank": "zero", "missing": "left-out"}
    settings |= {"scale": "percent", "n": len(sums_NS)}
    resamples = None
    if seed is not None and len(sums_NS):
        if clusters is not None and clusters.shape != complete.shape:
            raise ValueError(f"clusters of shape {clusters.shape} for {len(complete)} pairs")
        of_pair = np.arange(len(sums_NS)) if clusters is None else np.unique(clusters[complete], return_inverse=True)[1]
        totals_CS = cluster_sums(sums_NS, of_pair.astype(np.int64))
        resamples = resample(totals_CS, rng=np.random.default_rng(seed), n_bootstrap=n_bootstrap)
        n |= {"clusters": len(totals_CS), "resamples": n_bootstrap}
        settings |= {"interval": "percentile-by-cluster", "confidence": confidence, "n_bootstrap": n_bootstrap}
        settings |= {"seed": seed, "numpy": np.__version__}
    reason: Reason | None = None if len(sums_NS) else "no_pairs"
    estimates = {}
    for m, metric in enumerate(METRICS):
        interval = Interval(None, None, NO_INTERVAL, 0, ())
        if resamples is not None:
            interval = bootstrap_interval(resamples, _Mean(m), confidence=confidence)
        value = None if reason else float(sums_NS[:, 1 + m].mean())
        signature = str(Signature.of(metric, VERSION, **settings))
        estimates[metric] = Estimate(
            value, interval.low, interval.high, n, interval.method, signature, reason, interval.notes
        )
    return estimates


class _Mean:
    """The mean of one metric from sums over pairs: (..., S) ► (...)."""

    def __init__(self, metric: int) -> None:
        self.metric = metric

    def __call__(self, sums: FloatArray) -> FloatArray:
        mean: FloatArray = sums[..., 1 + self.metric] / sums[..., 0]
        return mean
