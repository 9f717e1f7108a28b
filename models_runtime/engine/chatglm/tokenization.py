"""ChatGLM-6B's words: sentencepiece with marks of its own for line breaks, tabs and runs of blanks.

The sentencepiece model normalises with NFKC, so full-width ，！：；？ are half-width among the tokens and in decoded
text; `restore_punctuation` gives them back as the published chat function does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from models_runtime.engine.errors import TokenizerMissing

LINE_BREAK, TAB = "<n>", "<|tab|>"
LONGEST_BLANK = 80
BLANKS = re.compile(rf" {{2,{LONGEST_BLANK}}}")
BLANK_MARK = re.compile(r"<\|blank_([2-9]|[1-7][0-9]|80)\|>")
HALF_TO_FULL = {",": "，", "!": "！", ":": "：", ";": "；", "?": "？"}
HAN = "\u4e00-\u9fff"


class ChatGLMTokenizer:
    """Text to ids and back. Prompts are padded on the left; the special tokens of a prompt come last.

    n_image_tokens: ids that the vocabulary of 150,528 reserves before the first word: 20,000 there, else 0.
    """

    padding_side = "left"

    def __init__(self, model_file: Path, *, n_image_tokens: int = 0) -> None:
        self.model_file = model_file
        self._sp = load_sentencepiece(model_file)
        self._shift = n_image_tokens
        self.pad_token_id = self._special("<pad>")
        self.mask_token_id = self._special("[MASK]")
        self.gmask_token_id = self._special("[gMASK]")
        self.bos_token_id = self._special("<sop>")
        self.eos_token_id = self._special("<eop>")

    @property
    def vocab_size(self) -> int:
        """Words and specials, without the unused rows that fill up the model's embedding table."""
        return int(self._sp.get_piece_size()) + self._shift

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Ids of the text, then `[gMASK] <sop>`, after which the model writes."""
        ids = [i + self._shift for i in self._sp.encode(_mark_whitespace(text))]
        return self.prompt(ids) if add_special_tokens else ids

    def prompt(self, context: Sequence[int], target: Sequence[int] | None = None) -> list[int]:
        """Ids the model is fed: the context with its special tokens and, for training, the target with its end."""
        ids = [*context, self.gmask_token_id, self.bos_token_id]
        return ids if target is None else [*ids, *target, self.eos_token_id]

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """Text of the ids, half-width punctuation as the model sees it. Special tokens have no text."""
        words = [int(i) - self._shift for i in ids]
        text = self._sp.decode([i for i in words if 0 <= i < self._sp.get_piece_size()])
        text = text.replace(LINE_BREAK, "\n").replace(TAB, "\t")
        return BLANK_MARK.sub(lambda mark: " " * int(mark[1]), text)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The pieces of the ids, for a person to look at."""
        return [self._sp.id_to_piece(i - self._shift) for i in ids]

    def _special(self, piece: str) -> int:
        return special_id(self._sp, piece, self.model_file) + self._shift


def load_sentencepiece(model_file: Path) -> sentencepiece.SentencePieceProcessor:
    """Raises TokenizerMissing if there is no such file or it is no sentencepiece model."""
    if not model_file.is_file():
        raise TokenizerMissing(
            f"{model_file} is missing; copy the tokenizer file of the published model beside the weights"
        )
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(model_file))
    except Exception as error:  # the library raises RuntimeError, OSError or its own, depending on where it stumbles
        raise TokenizerMissing(f"{model_file} is no sentencepiece model; fetch it again") from error


def special_id(sp: sentencepiece.SentencePieceProcessor, piece: str, model_file: Path) -> int:
    """The id of a special piece. Raises TokenizerMissing if the model does not know it."""
    found = int(sp.piece_to_id(piece))
    if sp.id_to_piece(found) != piece:
        raise TokenizerMissing(f"{model_file} has no piece {piece}; it belongs to another model")
    return found


def restore_punctuation(text: str) -> str:
    """The text as chat() shows it: stripped, and full-width punctuation back where it touches a Chinese character."""
    text = text.strip().replace("[[训练时间]]", "2023年")
    for half, full in HALF_TO_FULL.items():
        mark = re.escape(half)
        text = re.sub(f"(?<=[{HAN}]){mark}", full, text)
        text = re.sub(f"{mark}(?=[{HAN}])", full, text)
    return text


def _mark_whitespace(text: str) -> str:
    text = text.replace("\n", LINE_BREAK).replace("\t", TAB)
    return BLANKS.sub(lambda run: f"<|blank_{len(run[0])}|>", text)
