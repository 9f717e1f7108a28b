"""The next token of each row: temperature, top-k, top-p, and noise that belongs to the response alone.

The noise of a token is a hash of (seed, item, repeat, step, token): there is no generator whose state could depend on
neighbours, order or batch size. The token with the largest logit + Gumbel noise is drawn from the softmax exactly, and
since each token has noise of its own, a rounding error elsewhere in the vocabulary moves nothing.

Logits are not that steady: the same row in another batch differs in its last bits. So a choice also says whether it is
close: whether logits that are all off by up to a tolerance, in whatever directions, could have led to another token.

Shapes: B = rows, V = vocabulary, C = candidates (the best tokens of a row, best first).

Sources: Gumbel (1954) and Maddison et al. (2014), A* Sampling, for the Gumbel-max draw; Steele, Lea & Flood (2014),
Fast Splittable Pseudorandom Number Generators, for the mixing function (its 64-bit finaliser is Stafford's variant 13).
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models_runtime.engine.spec import DecodingConfig

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
KeyArray = npt.NDArray[np.uint64]

SPARE_CANDIDATES = 14  # beyond top_k: tokens that tie with the last one, or that a rounding error could let in

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: the step between streams
_STEP = np.uint64(
    0xD1342543DE82EF95
)  # odd, from Steele & Vigna (2021), Computationally Easy, Spectrally Good Multipliers


class Candidates(NamedTuple):
    """The best tokens of each row. Rows with a logit that is no number are not usable: is_broken_B."""

    logits_BC: FloatArray
    tokens_BC: IntArray
    is_broken_B: BoolArray


class Choice(NamedTuple):
    """tokens_B: what was chosen;  is_close_B: a small error of the logits might have changed it."""

    tokens_B: IntArray
    is_close_B: BoolArray


def noise_key(seed: int, item: str, repeat: int) -> np.uint64:
    """What all noise of one response is made from: 64 bits of a hash of its name."""
    name = f"{seed}\x1f{repeat}\x1f{item}".encode()
    return np.uint64(int.from_bytes(hashlib.blake2b(name, digest_size=8, person=b"qingting").digest()))


def gumbel_noise(keys_B: KeyArray, steps_B: IntArray, tokens_BC: IntArray) -> FloatArray:
    """Standard Gumbel noise of each token at one step of each row, shape (B, C)."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        at_step_B = _mix(keys_B + _STEP * (steps_B.astype(np.uint64) + np.uint64(1)))
        bits_BC = _mix(at_step_B[:, None] + _GOLDEN * (tokens_BC.astype(np.uint64) + np.uint64(1)))
    uniform_BC = ((bits_BC >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # inside (0, 1), never at an end
    noise: FloatArray = -np.log(-np.log(uniform_BC))
    return noise


def _mix(x: KeyArray) -> KeyArray:
    """A bijection of 64 bits in which every input bit flips every output bit about half the time."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def n_candidates(config: DecodingConfig, vocabulary: int) -> int:
    """How many of the best tokens `choose` must see: two for the best one, all where top-k is off."""
    if not config.is_sampled:
        return min(2, vocabulary)
    return min(config.top_k + SPARE_CANDIDATES, vocabulary) if config.top_k else vocabulary


def candidates_of(logits_BV: Tensor, config: DecodingConfig) -> Candidates:
    """The best tokens of each row, best first; equal logits in the order of their ids."""
    logits_BV = logits_BV.float()
    broken_B = ~torch.isfinite(logits_BV).all(dim=-1)
    best_BC, tokens_BC = torch.topk(logits_BV, n_candidates(config, logits_BV.shape[-1]), dim=-1)
    packed = torch.cat([best_BC.double(), tokens_BC.double(), broken_B[:, None].double()], dim=-1)
    values = packed.cpu().numpy()  # one transfer a step; ids are exact in double
    n = best_BC.shape[-1]
    logits, tokens = values[:, :n], values[:, n : 2 * n].astype(np.int64)
    order = np.lexsort((tokens, -logits), axis=-1)
    return Candidates(
        np.take_along_axis(logits, order, axis=-1), np.take_along_axis(tokens, order, axis=-1), values[:, -1] > 0
    )


def n_kept(scores_BC: FloatArray, config: DecodingConfig, *, top_p: float | None = None) -> IntArray:
    """How many of the best candidates top-k and then top-p leave in, per row; at least one.

    scores_BC: logits over temperature, best first. As in transformers, whatever ties with the last of the k stays, and
    of the rest the fewest tokens that make up top_p.  top_p: another one than that of `config`.
    """
    limit = config.top_p if top_p is None else top_p
    is_in_BC = np.ones(scores_BC.shape, dtype=bool)
    if 0 < config.top_k < scores_BC.shape[-1]:
        is_in_BC = scores_BC >= scores_BC[:, config.top_k - 1, None]
    if config.top_p < 1:
        weights_BC = np.where(is_in_BC, np.exp(scores_BC - scores_BC[:, :1]), 0.0)
        above_BC = np.cumsum(weights_BC, axis=-1) - weights_BC
        is_in_BC &= above_BC < limit * weights_BC.sum(axis=-1, keepdims=True)
    n_in_B: IntArray = np.maximum(is_in_BC.sum(axis=-1), 1)
    return n_in_B


def choose(
    candidates: Candidates, config: DecodingConfig, keys_B: KeyArray, steps_B: IntArray, *, tolerance: float = 0.0
) -> Choice:
    """The token of each row at its step.

    tolerance: how far each logit may be off. Where that could lead to another token, is_close_B is true.
    Rows that are broken get some token and are never close; the caller drops them.
    """
    scores_BC = np.where(candidates.is_broken_B[:, None], 0.0, candidates.logits_BC) / config.temperature
    margin = 2 * tolerance / config.temperature  # two scores off by `tolerance` in opposite directions
    if not config.is_sampled:
        runner_up_B = scores_BC[:, 1] if scores_BC.shape[-1] > 1 else np.full(len(scores_BC), -np.inf)
        return Choice(candidates.tokens_BC[:, 0], (scores_BC[:, 0] - runner_up_B <= margin) & ~candidates.is_broken_B)
    noisy_BC = scores_BC + gumbel_noise(keys_B, steps_B, candidates.tokens_BC)
    rank_C = np.arange(scores_BC.shape[-1])
    best_B = np.where(rank_C < n_kept(scores_BC, config)[:, None], noisy_BC, -np.inf).argmax(axis=-1)
    if tolerance > 0:
        is_close_B = _is_close(scores_BC, noisy_BC, best_B, config, margin) & ~candidates.is_broken_B
    else:
        is_close_B = np.zeros(len(best_B), dtype=bool)
    return Choice(np.take_along_axis(candidates.tokens_BC, best_B[:, None], axis=-1)[:, 0], is_close_B)


def _is_close(
    scores_BC: FloatArray, noisy_BC: FloatArray, best_B: IntArray, config: DecodingConfig, margin: float
) -> BoolArray:
    """Whether scores that are off, two against each other by up to `margin`, could make another token the best.

    Errs towards yes. What top-p leaves in is bounded by asking for a little more and a little less of top_p (the share
    of any group of tokens changes by no more than e^(2 margin)), then for what could change places across either cut:
    whoever is within `margin` of the last that the larger share lets in may be in, and whoever is not more than
    `margin` above the first that the smaller share leaves out may be out.
    """
    rows, n = np.arange(len(scores_BC)), scores_BC.shape[-1]
    always = np.full(len(rows), -np.inf)

    def score_at(index_B: IntArray, beyond: FloatArray) -> FloatArray:
        return np.where(index_B < n, scores_BC[rows, np.minimum(index_B, n - 1)], beyond)

    n_more_B = n_kept(scores_BC, config, top_p=config.top_p * np.exp(2 * margin))
    n_less_B = n_kept(scores_BC, config, top_p=config.top_p * np.exp(-2 * margin))
    from_B, above_B = always, always  # in if anything: scores from here on;  in for certain: scores above this
    if config.top_p < 1:
        from_B, above_B = score_at(n_more_B - 1, always) - margin, score_at(n_less_B, always) + margin
    if 0 < config.top_k < n:
        from_B = np.maximum(from_B, scores_BC[:, config.top_k - 1] - margin)
        above_B = np.maximum(above_B, scores_BC[:, config.top_k] + margin)
    chosen_B = scores_BC[rows, best_B]
    is_alone_on_top_B = (best_B == 0) & (chosen_B > score_at(np.ones_like(best_B), always) + margin)
    is_in_B = (chosen_B > above_B) | is_alone_on_top_B
    rivals_BC = np.where(scores_BC >= from_B[:, None], noisy_BC, -np.inf)
    rivals_BC[rows, best_B] = -np.inf
    is_rivalled_B = rivals_BC.max(axis=-1) >= noisy_BC[rows, best_B] - margin
    is_cut_short_B = (0 < config.top_k < n) & (from_B <= scores_BC[:, -1])  # a rival may not be among the candidates
    is_close_B: BoolArray = ~is_in_B | is_rivalled_B | is_cut_short_B
    return is_close_B
