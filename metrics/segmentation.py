"""Text to tokens, in ways that are named and versioned: code points, characters, sacrebleu's `zh`, and jieba words.

Words are those of jieba with its hidden Markov model. They are cut by rjieba (the same dictionary, in Rust, some
twenty times faster) except in clauses that hold something the two treat differently; those go to jieba itself, so
the result is jieba's for every text. Where rjieba is missing, jieba cuts everything: slower, and the same words.

Loading either dictionary takes a second and tens of megabytes, so that happens at the first text and not at import.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import numpy as np
import numpy.typing as npt

from metrics.table import BoolArray

VERSION = 1

CodePoints = npt.NDArray[np.uint32]
Tokens = Literal["codepoints", "characters", "zh", "words", "rouge_chinese"]
"""How a text is cut.

codepoints: every code point, blanks and line ends included, as nltk sees `list(text)`.
characters: every code point but white space; what sacrebleu calls `char`.
zh: sacrebleu's `zh`: Chinese characters one by one, everything else as mteval 13a does.
words: jieba words without white space.
rouge_chinese: those words as the package rouge_chinese 1.0.3 reads them back, its empty tokens included.
"""
Punctuation = Literal["keep", "drop"]

N_CODE_POINTS = 0x110000
_WHITE_SPACE = [point for point in range(0x3001) if chr(point).isspace()]

# Where jieba 0.42.1 and rjieba 0.2.2 differ. jieba joins + # & . _ % - to Latin letters and digits in one block, and
# its pattern for Chinese ends at U+9FD5; jieba-rs cuts such signs elsewhere, joins every newer or rarer ideograph, and
# takes no lone surrogates. Where something is said three times in a row, several ways to cut it are equally likely
# but for the last bit, and the two break the tie differently. With these sent to jieba, 125,000 random strings (of
# dictionary words, of characters by their frequency, of repetitions) gave one difference: 常在这的.
_SIGNS_DIFFER = re.compile(
    r"[A-Za-z0-9][-+#&._%]|[-+#&._%][A-Za-z0-9]"
    r"|[\u3400-\u4DBF\u9FD6-\u9FFF\uF900-\uFAFF\U00020000-\U0003FFFF]"
    r"|[\uD800-\uDFFF]"
)
LONGEST_UNIT = 8
_REPEATS = re.compile(f"([\u4e00-\u9fd5]{{1,{LONGEST_UNIT}}}?)\\1\\1")
# Both yield each of these by itself and cut what lies between without regard to what lies beyond.
_CLAUSE_END = re.compile("([，。！？、；：])")


@dataclass(frozen=True)
class Normalisation:
    """What is done to every text before and after it is cut.

    nfkc: Unicode NFKC first, which folds full-width letters, digits and punctuation into ASCII and joins accents.
    punctuation: "drop" removes tokens that consist of Unicode punctuation (category P) alone, after cutting, so that
        it changes no word. Symbols such as ～, +, $ and emoji stay.
    """

    nfkc: bool = False
    punctuation: Punctuation = "keep"

    def text(self, text: str) -> str:
        """The text as it is cut."""
        return unicodedata.normalize("NFKC", text) if self.nfkc else text


AS_IT_IS = Normalisation()


# Code points as numbers.


def code_points(text: str) -> CodePoints:
    """The code points of a text as numbers; lone surrogates are kept."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def text_of(points: npt.NDArray[np.integer]) -> str:
    """The text of these code points, the inverse of code_points."""
    return points.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


@cache
def is_white_space() -> BoolArray:
    """Shape (0x110000,): True where str.split() would split."""
    table = np.zeros(N_CODE_POINTS, dtype=np.bool_)
    table[_WHITE_SPACE] = True
    return table


@cache
def is_punctuation() -> BoolArray:
    """Shape (0x110000,): True for Unicode category P of this Python's Unicode version."""
    return np.fromiter((unicodedata.category(chr(point))[0] == "P" for point in range(N_CODE_POINTS)), np.bool_)


@cache
def _all_punctuation(token: str) -> bool:
    return bool(token) and all(unicodedata.category(character)[0] == "P" for character in token)


def without_punctuation(tokens: Sequence[str]) -> list[str]:
    """The tokens that are more than punctuation."""
    return [token for token in tokens if not _all_punctuation(token)]


# sacrebleu's zh.

# TokenizerZh of sacrebleu 2.6.0, written out. Its two astral ranges are five-digit escapes in strings, which compare
# as U+2001 … U+2A6D and U+2F81 … U+2FA1: typographic quotes, dashes and the ellipsis count as Chinese, Extension B
# does not (mjpost/sacrebleu#298).
_ZH = (
    "\u2001-\u2a6d\u2e80-\u303f\u3100-\u312f\u31a0-\u31bf\u31c0-\u31ef\u3200-\u33ff\u3400-\u4db5\u4e00-\u9fbb"
    "\uf900-\ufa2d\ufa30-\ufa6a\ufa70-\ufad9\ufe10-\ufe1f\ufe30-\ufe4f\uff00-\uffef"
)
_ZH_GAPS = "\u2fe0-\u2fef"  # between the Kangxi radicals and the description characters: not Chinese to sacrebleu
_IS_ZH = re.compile(f"((?![{_ZH_GAPS}])[{_ZH}])")
_HAS_LONG_TOKEN = re.compile(f"(?:[^{_ZH}\\s]|[{_ZH_GAPS}]){{2}}")
_MTEVAL = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


def zh_differs(text: str) -> bool:
    """False if the `zh` tokens of this text are just its characters without white space."""
    return _HAS_LONG_TOKEN.search(text) is not None


def zh_tokens(text: str) -> list[str]:
    """Tokens as sacrebleu 2.6.0 cuts them with tokenize="zh"."""
    text = _IS_ZH.sub(r" \1 ", text.strip())
    for pattern, spaced in _MTEVAL:
        text = pattern.sub(spaced, text)
    return text.split()


# jieba's words.


@cache
def _rjieba_cut() -> Callable[[str], list[str]] | None:
    try:
        import rjieba  # here, because importing it loads its dictionary
    except ImportError:
        return None
    cut: Callable[[str], list[str]] = rjieba.cut
    return cut


@cache
def _jieba_cut() -> Callable[[str], list[str]]:
    """jieba with its own dictionary, read from the package.

    Not jieba.lcut: that one shares words which other code may have added, and reads a cache of unknown origin from
    the folder for temporary files.
    """
    import jieba  # here, because a text that needs it is rare

    tokenizer = jieba.Tokenizer()
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    cut: Callable[[str], list[str]] = tokenizer.lcut
    return cut


def needs_jieba(text: str) -> bool:
    """Whether the text holds something that rjieba may cut differently from jieba."""
    return _SIGNS_DIFFER.search(text) is not None or _REPEATS.search(text) is not None


def jieba_words(text: str) -> list[str]:
    """Words as jieba 0.42.1 cuts them with HMM=True, white space included; joined they are the text."""
    return cut_texts([text])[0]


def cut_texts(texts: Sequence[str]) -> list[list[str]]:
    """The jieba_words of many texts."""
    cut = _rjieba_cut()
    if cut is None:
        return [_jieba_cut()(text) for text in texts]
    return [
        _cut_by_clause(text, cut) if is_suspect else cut(text)
        for text, is_suspect in zip(texts, may_need_jieba(texts).tolist(), strict=True)
    ]


def _cut_by_clause(text: str, cut: Callable[[str], list[str]]) -> list[str]:
    parts = _CLAUSE_END.split(text)
    return [word for part in parts if part for word in (_jieba_cut() if needs_jieba(part) else cut)(part)]


def may_need_jieba(texts: Sequence[str]) -> BoolArray:
    """Shape (n_texts,): True wherever needs_jieba is, seldom elsewhere; ten times as fast as asking it."""
    points = code_points("".join(texts))
    kinds = _kinds()[points]
    suspects = [np.flatnonzero((kinds[1:] | kinds[:-1]) == _SIGN | _LATIN), np.flatnonzero(kinds == _RARE)]
    for unit in range(1, LONGEST_UNIT + 1):
        as_before = (points[unit:] == points[:-unit]) & (kinds[unit:] == _COMMON)
        run = np.concatenate(([0], np.cumsum(as_before, dtype=np.int32)))
        suspects.append(np.flatnonzero(run[2 * unit :] - run[: -2 * unit] == 2 * unit))
    ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
    found = np.zeros(len(texts), dtype=np.bool_)
    found[np.searchsorted(ends, np.concatenate(suspects), side="right")] = True
    return found


_LATIN, _SIGN, _RARE, _COMMON = 1, 2, 4, 8


@cache
def _kinds() -> npt.NDArray[np.uint8]:
    """Shape (0x110000,): what each code point is to _SIGNS_DIFFER and _REPEATS."""
    kinds = np.zeros(N_CODE_POINTS, dtype=np.uint8)
    kinds[[ord(sign) for sign in "-+#&._%"]] = _SIGN
    for kind, ranges in (
        (_LATIN, ((0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A))),
        (_RARE, ((0x3400, 0x4DBF), (0x9FD6, 0x9FFF), (0xD800, 0xDFFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))),
        (_COMMON, ((0x4E00, 0x9FD5),)),
    ):
        for first, last in ranges:
            kinds[first : last + 1] = kind
    return kinds


def words(text: str, punctuation: Punctuation = "keep") -> list[str]:
    """jieba words without white space."""
    tokens = [word for word in jieba_words(text) if not word.isspace()]
    return without_punctuation(tokens) if punctuation == "drop" else tokens


# rouge_chinese cuts sentences again in words joined by blanks. Of its four patterns these two can meet such a text.
_STOP = re.compile(r"([。！？?])([^”’])")
_SIX_DOTS = re.compile(r"(\.{6})([^”’])")


def rouge_chinese_differs(text: str) -> bool:
    """False if rouge_chinese sees just the words; a line end or six dots in a row can make it see others."""
    return "\n" in text or "......" in text


def rouge_chinese_words(jieba_cut: Sequence[str]) -> list[str]:
    """The tokens that rouge_chinese 1.0.3 makes of " ".join(words).

    Its quirk: a line end after a sentence stop, or an empty line, leaves an empty token "" that counts like a word,
    so two texts that differ in that line end alone do not match fully. Seven dots in a row are cut into two words.
    """
    joined = _SIX_DOTS.sub(r"\1\n\2", _STOP.sub(r"\1\n\2", " ".join(jieba_cut))).rstrip()
    return [token for line in joined.split("\n") if line for token in " ".join(line.split()).split(" ")]


# What a signature says.


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


@cache
def dictionary_hash() -> str:
    """The first 12 digits of the SHA-256 of jieba's dictionary, of which rjieba has a copy inside."""
    import jieba  # here, because a signature is rarer than an import

    with jieba.Tokenizer().get_dict_file() as file:
        return hashlib.sha256(file.read()).hexdigest()[:12]


def describe(tokens: Tokens) -> str:
    """How texts are cut, with every version that matters, as one part of a signature."""
    name = f"{tokens}-{VERSION}"
    if tokens in ("words", "rouge_chinese"):
        packages = f"jieba={_version('jieba')},rjieba={_version('rjieba')},dictionary={dictionary_hash()}"
        return f"{name}(jieba-hmm,{packages})"
    return f"{name}(unicode={unicodedata.unidata_version})"
