"""Counting n-grams, n-gram sets and longest common subsequences of many pairs of texts at once.

A block of references is cut and sorted once; any number of systems is then looked up in it. The result is a row of
integers per pair, in the columns that `columns` names; what they mean for a score is decided in `metrics.text`.

Shapes: N = pairs of a block, K = columns of the table.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cpdist

from metrics import segmentation
from metrics.segmentation import Normalisation, Tokens
from metrics.table import BoolArray, IntArray

Text = str | None
CountTable = npt.NDArray[np.int32]
Keys = npt.NDArray[np.uint64]

ORDERS: Mapping[Tokens, int] = {"codepoints": 4, "characters": 4, "zh": 4, "words": 4, "rouge_chinese": 2}
FOR_ROUGE: frozenset[Tokens] = frozenset(("characters", "words", "rouge_chinese"))
LARGEST_TABLE = 1 << 22  # entries: 16 MB
FLAGS = ("hypothesis_missing", "reference_missing", "hypothesis_blank", "reference_blank")


def columns(tokens: Sequence[Tokens]) -> tuple[str, ...]:
    """The names of the K columns: "<tokens>.<count>", then the flags.

    match_n: n-grams of the hypothesis that the reference has, each as often as it does at most;  *_set_n: different
    n-grams of a side, or of both;  lcs: length of the longest common subsequence.
    """
    names: list[str] = []
    for kind in tokens:
        counts = ["hypothesis_length", "reference_length"]
        counts += [f"match_{order}" for order in range(1, ORDERS[kind] + 1)]
        if kind in FOR_ROUGE:
            counts += [f"{side}_set_{order}" for side in ("hypothesis", "reference", "both") for order in (1, 2)]
            counts.append("lcs")
        names += [f"{kind}.{count}" for count in counts]
    return (*names, *FLAGS)


def _is_shared(column: str) -> bool:
    """Whether a column counts what both sides have in common."""
    return column.rpartition(".")[2].startswith(("match_", "both_", "lcs"))


# Cutting.


class _Numbers(dict[str, int]):
    """Words to numbers from 0 on, in the order they are met; -1 for what is no token here."""

    def __init__(self, known: Mapping[str, int], *, size: int, drop_punctuation: bool) -> None:
        super().__init__(known)
        self.size = size
        self.drop_punctuation = drop_punctuation

    def __missing__(self, word: str) -> int:
        is_dropped = word.isspace() or (self.drop_punctuation and not segmentation.without_punctuation([word]))
        self[word] = number = -1 if is_dropped else self.size
        self.size += not is_dropped
        return number


class Side(NamedTuple):
    """The tokens of one block of texts, hypotheses or references.

    symbols: all tokens of all texts in a row, a number per different token;  lengths: tokens per text, shape (N,).
    """

    symbols: IntArray
    lengths: IntArray


def _kept(symbols: IntArray, lengths: IntArray, is_kept: BoolArray) -> Side:
    """Without the tokens that are not kept."""
    if is_kept.all():
        return Side(symbols, lengths)
    return Side(symbols[is_kept], _sum_by_text(is_kept, lengths))


def _sum_by_text(values: BoolArray | IntArray, lengths: IntArray) -> IntArray:
    """Values per token added up per text, shape (N,); 0 for a text without tokens."""
    return _between(values, np.concatenate(([0], np.cumsum(lengths))))


def _between(values: BoolArray | IntArray, starts: IntArray) -> IntArray:
    """Sums of the values from each start up to the next."""
    running = np.concatenate(([0], np.cumsum(values, dtype=np.int64)))
    sums: IntArray = running[starts[1:]] - running[starts[:-1]]
    return sums


class Cut:
    """One block of texts, cut in every way asked for.

    texts: None counts as empty here, and `is_missing` remembers it;  known: the numbers of the references' words.
    """

    def __init__(
        self, texts: Sequence[Text], normalisation: Normalisation, known: Mapping[Tokens, _Numbers] | None = None
    ) -> None:
        self.texts = [normalisation.text(text or "") for text in texts]
        self.drop_punctuation = normalisation.punctuation == "drop"
        self.known = known or {}
        self.numbers: dict[Tokens, _Numbers] = {}
        points = segmentation.code_points("".join(self.texts))
        lengths = np.fromiter(map(len, self.texts), np.int64, len(self.texts))
        is_space = segmentation.is_white_space()[points]
        is_dropped = segmentation.is_punctuation()[points] if self.drop_punctuation else np.zeros_like(is_space)
        symbols = points.astype(np.int64)
        self.codepoints = _kept(symbols, lengths, ~is_dropped)
        self.characters = _kept(symbols, lengths, ~(is_dropped | is_space))
        self.is_missing = np.fromiter((text is None for text in texts), np.bool_, len(texts))
        self.is_blank = (self.characters.lengths == 0) & ~self.is_missing
        self._words: list[list[str]] | None = None

    def side(self, tokens: Tokens) -> Side:
        """The tokens of one kind."""
        if tokens == "codepoints":
            return self.codepoints
        if tokens == "characters":
            return self.characters
        known = self.known.get(tokens)
        numbers = _Numbers(known or {}, size=known.size if known else 0, drop_punctuation=self.drop_punctuation)
        self.numbers[tokens] = numbers
        cut = self._strings(tokens)
        lengths = np.fromiter(map(len, cut), np.int64, len(cut))
        symbols = np.fromiter(map(numbers.__getitem__, chain.from_iterable(cut)), np.int64, int(lengths.sum()))
        return _kept(symbols, lengths, symbols >= 0)

    def _strings(self, tokens: Tokens) -> Sequence[Sequence[str]]:
        if tokens == "zh":
            return [segmentation.zh_tokens(text) if segmentation.zh_differs(text) else text for text in self.texts]
        if self._words is None:
            self._words = segmentation.cut_texts(self.texts)
        if tokens == "words":
            return self._words
        return [
            self._as_rouge_chinese(words) if segmentation.rouge_chinese_differs(text) else words
            for text, words in zip(self.texts, self._words, strict=True)
        ]

    def _as_rouge_chinese(self, words: list[str]) -> list[str]:
        kept = segmentation.without_punctuation(words) if self.drop_punctuation else words
        return segmentation.rouge_chinese_words(kept)


# Counting. References are sorted once; a system's n-grams are then looked up, and only those whose first and last
# n - 1 tokens were found can be found themselves, so that every order looks up far fewer than the one before.


class _Order(NamedTuple):
    """The different n-grams of a block of references.

    keys: sorted, (number of the first n - 1 tokens) x alphabet + last token; the position of a key is its number;
    counts: how often each occurs in its text;  starts: shape (N + 1,): where the n-grams of each text begin.
    """

    keys: npt.NDArray[np.unsignedinteger]
    counts: npt.NDArray[np.int32]
    starts: IntArray

    @property
    def set_sizes(self) -> IntArray:
        """How many different n-grams each text has, shape (N,)."""
        return np.diff(self.starts)


class _Index:
    """The n-grams of a block of references, of one kind of token, ready to be looked up."""

    def __init__(self, side: Side, tokens: Tokens) -> None:
        self.tokens = tokens
        self.lengths = side.lengths
        self.ids_of: npt.NDArray[np.int32] | None = None  # words are numbered without gaps as they are
        self.alphabet = int(side.symbols.max(initial=-1)) + 1
        if tokens in ("codepoints", "characters"):
            used = np.unique(side.symbols)
            self.ids_of = np.full(self.alphabet + 1, len(used), dtype=np.int32)
            self.ids_of[used] = np.arange(len(used))
            self.alphabet = len(used)
        ids = self.ids(side.symbols)
        self.orders = list(_orders(ids, side.lengths, self.alphabet, ORDERS[tokens]))
        self.strings = _strings(ids, side.lengths) if tokens in FOR_ROUGE else []

    def ids(self, symbols: IntArray) -> IntArray:
        """Numbers below `alphabet` for tokens that some reference of the block has, `alphabet` for all others."""
        if self.ids_of is None:
            return np.minimum(symbols, self.alphabet)
        return self.ids_of[np.minimum(symbols, len(self.ids_of) - 1)].astype(np.int64)


def _orders(ids: IntArray, lengths: IntArray, alphabet: int, n_orders: int) -> Iterator[_Order]:
    text_of_token = np.repeat(np.arange(len(lengths)), lengths)
    ends = np.repeat(np.cumsum(lengths), lengths)  # where the text of each token ends
    at = np.arange(len(ids))  # where each n-gram begins
    numbers = text_of_token  # of the first n - 1 tokens; for n = 1 that is the text itself
    for order in range(1, n_orders + 1):
        is_inside = at + order <= ends[at]
        at, numbers = at[is_inside], numbers[is_inside]
        is_narrow = (int(numbers.max(initial=0)) + 1) * (alphabet + 1) < 2**32
        keys, position = _sorted((numbers * alphabet + ids[at + order - 1]).astype(np.uint64))
        is_first = np.ones(len(keys), dtype=np.bool_)
        is_first[1:] = keys[1:] != keys[:-1]
        first = np.flatnonzero(is_first)
        starts = np.searchsorted(text_of_token[at[position[first]]], np.arange(len(lengths) + 1))
        counts = np.diff(first, append=len(keys)).astype(np.int32)
        yield _Order(keys[first].astype(np.uint32) if is_narrow else keys[first], counts, starts)
        numbers = np.empty(len(keys), dtype=np.int64)
        numbers[position] = np.cumsum(is_first) - 1


def _sorted(keys: Keys) -> tuple[Keys, IntArray]:
    """The keys in order, and where each of them was."""
    n_bits = len(keys).bit_length()
    if int(keys.max(initial=0)).bit_length() + n_bits > 64:
        position = np.argsort(keys)
        return keys[position], position
    shift = np.uint64(n_bits)
    packed = np.sort((keys << shift) | np.arange(len(keys), dtype=np.uint64))  # much faster than an argsort
    return packed >> shift, (packed & ((np.uint64(1) << shift) - np.uint64(1))).astype(np.int64)


def _strings(ids: IntArray, lengths: IntArray) -> list[str]:
    """Each text as a string with one code point per token, for routines that compare strings."""
    points = np.where(ids < 0xD800, ids, ids + 0x800)  # surrogates are no code points
    if int(points.max(initial=0)) >= segmentation.N_CODE_POINTS:
        raise ValueError("a block with more different tokens than there are code points; make blocks smaller")
    whole = segmentation.text_of(points)
    ends = np.cumsum(lengths).tolist()
    return [whole[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def _count(index: _Index, side: Side) -> list[IntArray]:
    """The columns of one kind of token for one block of pairs, in the order of `columns`."""
    matches, overlaps = _matches(index, side)
    counts: list[IntArray] = [side.lengths, index.lengths, *matches]
    if index.tokens in FOR_ROUGE:
        counts += [*_set_sizes(side), *(order.set_sizes for order in index.orders[:2]), *overlaps[:2]]
        strings = _strings(index.ids(side.symbols), side.lengths)
        lcs = cpdist(strings, index.strings, scorer=LCSseq.similarity, dtype=np.int64)
        counts.append(np.asarray(lcs, dtype=np.int64))
    return counts


def _matches(index: _Index, side: Side) -> tuple[list[IntArray], list[IntArray]]:
    """Per order, each of shape (N,): clipped matches, and the different n-grams that both sides have."""
    ids = index.ids(side.symbols)
    text_of_token = np.repeat(np.arange(len(side.lengths)), side.lengths)
    at = np.flatnonzero(ids < index.alphabet)
    numbers = text_of_token[at]
    matches, overlaps = [], []
    for n, order in enumerate(index.orders, start=1):
        keys = (numbers * index.alphabet + ids[at + n - 1]).astype(order.keys.dtype)
        found, is_found = _looked_up(order.keys, keys, len(side.lengths) * index.alphabet if n == 1 else None)
        at, numbers = at[is_found], found[is_found]
        counts = np.bincount(numbers, minlength=len(order.keys))
        matches.append(_between(np.minimum(counts, order.counts), order.starts))
        overlaps.append(_between(counts > 0, order.starts))
        is_begin = np.zeros(len(ids) + 1, dtype=np.bool_)  # where a found n-gram begins
        is_begin[at] = True
        is_longer = is_begin[at + 1]
        at, numbers = at[is_longer], numbers[is_longer]
        is_one_text = text_of_token[at] == text_of_token[at + 1]
        at, numbers = at[is_one_text], numbers[is_one_text]
    return matches, overlaps


def _looked_up(
    sorted_keys: npt.NDArray[np.unsignedinteger], keys: npt.NDArray[np.unsignedinteger], n_possible: int | None
) -> tuple[IntArray, BoolArray]:
    """Where each key stands among the sorted ones, and whether it is there at all.

    n_possible: all keys lie below it, if known: with few possible keys a table is faster than a search.
    """
    if n_possible is not None and n_possible <= LARGEST_TABLE:
        place = np.full(n_possible, -1, dtype=np.int32)
        place[sorted_keys] = np.arange(len(sorted_keys), dtype=np.int32)
        found = place[keys].astype(np.int64)
        return found, found >= 0
    found = np.searchsorted(sorted_keys, keys)
    is_found = np.zeros(len(keys), dtype=np.bool_)
    inside = found < len(sorted_keys)
    is_found[inside] = sorted_keys[found[inside]] == keys[inside]
    return found, is_found


def _set_sizes(side: Side) -> list[IntArray]:
    """How many different tokens, and different pairs of neighbours, each text has; each of shape (N,)."""
    text_of_token = np.repeat(np.arange(len(side.lengths), dtype=np.uint64), side.lengths)
    symbols = side.symbols.astype(np.uint64)
    base = symbols.max(initial=0) + np.uint64(1)
    single = text_of_token * base + symbols
    is_last = np.zeros(len(single), dtype=np.bool_)
    is_last[np.cumsum(side.lengths)[side.lengths > 0] - 1] = True
    begins = np.flatnonzero(~is_last)
    double = single[begins] * base + symbols[begins + 1]
    return [_distinct(single, side.lengths), _distinct(double, np.maximum(side.lengths - 1, 0))]


def _distinct(keys: Keys, lengths: IntArray) -> IntArray:
    """Different keys per text, shape (N,); the keys of one text stay together when all are sorted."""
    keys = np.sort(keys)
    is_first = np.ones(len(keys), dtype=np.bool_)
    is_first[1:] = keys[1:] != keys[:-1]
    return _sum_by_text(is_first, lengths)


class Block:
    """Some references in a row, cut and sorted, against which any number of systems can be counted."""

    def __init__(self, texts: Sequence[Text], tokens: Sequence[Tokens], normalisation: Normalisation) -> None:
        cut = Cut(texts, normalisation)
        self.normalisation = normalisation
        self.indexes = [_Index(cut.side(kind), kind) for kind in tokens]
        self.numbers = cut.numbers
        self.is_missing, self.is_blank = cut.is_missing, cut.is_blank
        self.shared_columns = np.array([_is_shared(name) for name in columns(tokens)])

    def count(self, hypotheses: Sequence[Text]) -> CountTable:
        """The rows of these responses, shape (N, K). Nothing matches a blank side, not even another blank."""
        cut = Cut(hypotheses, self.normalisation, self.numbers)
        counts = [column for index in self.indexes for column in _count(index, cut.side(index.tokens))]
        flags = [cut.is_missing, self.is_missing, cut.is_blank, self.is_blank]
        table = np.column_stack([*counts, *flags]).astype(np.int32)
        table[np.ix_(np.column_stack(flags).any(axis=1), self.shared_columns)] = 0
        return table
