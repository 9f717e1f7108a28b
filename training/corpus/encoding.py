"""From turns to token ids, just as the model is fed when it answers: the same tokenizer, the same prompt templates.

What has a label is the target; everything before it is the context. For ChatGLM-6B the context ends with [gMASK], and
`<sop>`, the response and `<eop>` are the target, as in its official recipe (THUDM/ChatGLM-6B, ptuning/main.py). For
ChatGLM2 and other chat models the target is the response and its end token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from annotation.formats.dialogues import Turn
from models_runtime.engine import prompts
from models_runtime.engine.loading import Tokenizer, load_tokenizer
from models_runtime.engine.plain import PlainWords
from models_runtime.engine.prompts import DEFAULT_TEMPLATES, TEMPLATES, Template
from models_runtime.engine.spec import Family
from training.corpus.errors import CorpusError
from training.corpus.tokenizers import tokenizer_digest, tokenizer_files

# Lines that would betray a tokenizer whose pieces or normalisation reach across a line break.
_PROBES = ("你好", "", " 两端空格 ", "１２３…", "e\u0301", "\u0301x", "“引号”", "。", "<n>", "a  b", "😀", "3.14", "-")


class Encoder:
    """Contexts and targets of one model family as token ids.

    suffix: ids that end every context; `contexts` leaves them out.
    digest: SHA-256 over family, template and the tokenizer's files: the same turns make the same ids.
    """

    def __init__(self, tokenizer: Tokenizer, family: Family, template: Template, files: Mapping[str, str]) -> None:
        """files: name ► SHA-256 of each file that the tokenizer was read from."""
        self.family = family
        self.template = template
        self._tokenizer = cast(Any, tokenizer)
        self._words = PlainWords(tokenizer)
        self.digest = tokenizer_digest(family, template, files)
        self.suffix: tuple[int, ...] = (self._tokenizer.gmask_token_id,) if family == "chatglm" else ()
        self._start = [self._tokenizer.bos_token_id] if family == "chatglm" else []
        self._end = [self._end_id()]
        self._line_break = -1
        self._cue: list[int] = []
        if family == "chatglm" and template.layout == "lines" and not template.closing and template.separator == "\n":
            self._line_break = self._plain("\n")[-1]
            cue = self._plain(f"x\n{template.counsellor}")
            self._cue = cue[cue.index(self._line_break) :]
        self._is_fast = self._line_break >= 0 and self._lines_are_apart()

    @classmethod
    def load(cls, weights: Path, template: Template | None = None) -> Encoder:
        """The encoder for the model in a folder; without a template, its family's own.

        Raises EngineError if there is no tokenizer that can be read.
        """
        tokenizer, family = load_tokenizer(weights)
        return cls(
            tokenizer, family, template or TEMPLATES[DEFAULT_TEMPLATES[family]], tokenizer_files(weights, family)
        )

    @property
    def n_target_specials(self) -> int:
        """How many ids of a target are not of its text."""
        return len(self._start) + len(self._end)

    def target(self, text: str) -> list[int]:
        """Ids of a response, all of which have labels; only the special ones if the text has no tokens."""
        return [*self._start, *self._plain(self._words.spell_out(text)), *self._end]

    def contexts(self, turns: Sequence[Turn], ends: Sequence[int]) -> list[list[int]]:
        """For each end, ids of the prompt of `turns[:end]` without the suffix. `ends` ascend."""
        if self._is_fast and ends:
            shared = self._from_one_text(turns, ends)
            if shared is not None:
                return shared
        return [self.context(turns[:end]) for end in ends]

    def context(self, turns: Sequence[Turn]) -> list[int]:
        """Ids of the prompt of these turns without the suffix. Raises CorpusError if the chat template refuses them."""
        spoken = self._spoken(turns)
        if self.template.layout == "chat":
            return self._chat(prompts.chat_messages(self.template, spoken))
        return self._marked(prompts.prompt_text(self.template, spoken))

    def newest_that_fit(self, turns: Sequence[Turn], max_tokens: int) -> list[int]:
        """The context of as many of the newest turns as fit, suffix included in the count.

        Raises ContextTooLong if the newest turn alone does not fit.
        """
        prompt = prompts.build_prompt(
            self.template,
            self._spoken(turns),
            encode=self._marked,
            encode_chat=self._chat,
            max_tokens=max_tokens - len(self.suffix),
        )
        return list(prompt.ids)

    def _spoken(self, turns: Sequence[Turn]) -> list[prompts.Turn]:
        return [prompts.Turn(cast(prompts.Role, turn.role), self._words.spell_out(turn.text)) for turn in turns]

    def _plain(self, text: str) -> list[int]:
        return self._words.ids(text)

    def _marked(self, text: str) -> list[int]:
        """With the special tokens that open a prompt; those that close ChatGLM-6B's are suffix and target."""
        return self._words.ids(text, None if self.family == "chatglm" else self._tokenizer.encode)

    def _chat(self, messages: list[prompts.Message]) -> list[int]:
        if not hasattr(self._tokenizer, "apply_chat_template"):
            raise CorpusError(f"{self.family} has no chat template; use one of its own templates.")
        try:
            text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except Exception as error:  # the template is the checkpoint's own program and raises what it likes
            raise CorpusError(f"The model's chat template refuses this dialogue: {error}") from error
        return self._words.ids(text)

    def _end_id(self) -> int:
        """The token that ends a response: what the chat template writes after one, or the tokenizer's own."""
        own = int(self._tokenizer.eos_token_id)
        if self.template.layout != "chat" or not hasattr(self._tokenizer, "apply_chat_template"):
            return own
        asked = [{"role": "user", "content": "?"}]
        said = "Response."
        try:
            before = self._tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
            answered = [*asked, {"role": "assistant", "content": said}]
            after = self._tokenizer.apply_chat_template(answered, tokenize=False)
        except Exception as error:  # see above
            raise CorpusError(f"The model's chat template refuses an ordinary dialogue: {error}") from error
        rest = self._plain(after.removeprefix(before + said)) if after.startswith(before + said) else []
        return rest[0] if rest and rest[0] in self._tokenizer.all_special_ids else own

    # --- ChatGLM-6B: a dialogue is tokenised once, and its contexts are cut from it ---------------------------

    def _from_one_text(self, turns: Sequence[Turn], ends: Sequence[int]) -> list[list[int]] | None:
        """The contexts as beginnings of the longest, each with the counsellor's label; None if lines do not tell.

        A line break is a token of its own that no other piece reaches across, so what stands before it is tokenised
        alike whatever follows.
        """
        spoken = self._spoken(turns[: ends[-1]])
        ids = self._plain(prompts.prompt_text(self.template, spoken))
        breaks = [position for position, token in enumerate(ids) if token == self._line_break]
        marks = self.template.instruction.count("\n") - 1
        before_cue = []  # index into `breaks` of the line break after each turn
        for turn in spoken:
            marks += 1 + turn.text.count("\n") + turn.text.count("<n>")
            before_cue.append(marks)
        if len(breaks) != marks + 1:
            return None
        return [[*ids[: breaks[before_cue[end - 1]]], *self._cue] for end in ends]

    def _lines_are_apart(self) -> bool:
        """Whether contexts cut from one text are those tokenised one by one, for lines that invite the opposite."""
        turns = [Turn(role, text) for a in _PROBES for text in (a, a[::-1]) for role in ("client", "counsellor")]
        ends = list(range(1, len(turns), 2))
        return self._from_one_text(turns, ends) == [self.context(turns[:end]) for end in ends]
