"""Answers to many dialogues at once: rows come and go in one running batch, and none of them notices the others.

A prompt is computed without padding, and but for what it shares with the one before it, alone. Its keys and values are
then copied into a slot of the running batch, from the slot's first place on, so a row's arithmetic does not shift with
the length of its neighbours. All rows take a step together; a row that ends makes room for the next prompt. Longest
prompts go first: rows in the batch are of one length, and the end of the run is made of short ones.

What is promised, and why it holds: a response depends on (system, item, repeat, seed). Its noise does (see sampling).
Its logits nearly do: the same row in another batch differs in the last bits. In float32 every step whose choice could
hang on that (`TOLERANCE`) is decided anew from the whole sequence computed alone; so the response is the one that
decoding each row alone would give, as long as the drift stays below the tolerance. The drift seen at these steps is
reported. In half precision drift is too large for that: there the batch is kept at one size, idle rows included, so
that the arithmetic is as alike as the kernels make it, and a response may still differ between batch sizes; the size
is therefore reported with the responses.

Shapes: B = rows, V = vocabulary, W = width of the slots in tokens, N = heads of keys, H = channels of a head,
P = channels of a position (2 for ChatGLM-6B, else 1).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models_runtime.engine.chatglm.configuration import ChatGLMConfig
from models_runtime.engine.chatglm.modeling import prompt_positions
from models_runtime.engine.cpu import by_row
from models_runtime.engine.memory import MEMORY_ERRORS, Limits, bytes_per_token, default_limits, really_memory
from models_runtime.engine.rows import Row, in_order, keys_of, n_alike, steps_of
from models_runtime.engine.sampling import Candidates, candidates_of, choose
from models_runtime.engine.slots import Slots, rounded_up
from models_runtime.engine.spec import DecodingConfig

TOLERANCE = 5e-4  # how far a float32 logit may be off for its neighbours' sake; drift measured so far is below 5e-5
FEWEST_SHARED = 32  # tokens that two prompts must share before it is worth the trouble


@dataclass
class Counts:
    """What a run did.

    n_prompt_tokens: computed, those read again included.  n_shared_tokens: of prompts, known from the prompt before.
    n_live_tokens: looked back at, over all rows and steps.
    max_drift: the largest difference between a logit and that of the row computed alone, over the rechecks.
    rows_at_once: the limit in force, after any halving.
    """

    n_prompts: int = 0
    n_prompt_tokens: int = 0
    n_shared_tokens: int = 0
    n_steps: int = 0
    n_rows_stepped: int = 0
    n_live_tokens: int = 0
    n_rechecks: int = 0
    n_halvings: int = 0
    max_drift: float = 0.0
    rows_at_once: int = 0


@dataclass
class _Prompt:
    """What came of reading a prompt.  is_alone: computed whole, so that no other prompt has a part in the logits."""

    ids: list[int]
    logits_1V: Tensor
    cache: Any
    is_alone: bool


class Batch:
    """The running batch of one model. Works on token ids; `generate` (see generation) puts words around it."""

    def __init__(
        self,
        model: Any,
        end_token_ids: Iterable[int],
        decoding: DecodingConfig,
        limits: Limits | None = None,
        counts: Counts | None = None,
    ) -> None:
        self.model = model
        self.end_token_ids = frozenset(end_token_ids)
        self.decoding = decoding
        limits = limits or default_limits(model)
        self.max_rows, self.max_tokens = limits.rows, limits.tokens
        self.counts = counts if counts is not None else Counts()
        self._is_exact = model.dtype == torch.float32
        if not self._is_exact:  # idle rows take their place too, at the width of the longest response there can be
            longest = rounded_up(decoding.max_input_tokens + decoding.max_new_tokens)
            self.max_rows = max(1, min(limits.rows, limits.tokens // longest))
        self.counts.rows_at_once = self.max_rows
        self._is_two_channel = isinstance(model.config, ChatGLMConfig)
        self._layer_bytes = bytes_per_token(model) // model.config.get_text_config().num_hidden_layers
        self._takes_bool_mask = model.config._attn_implementation != "eager"
        self._rows: list[Row] = []
        self._slots: Slots | None = None
        self._last: _Prompt | None = None  # if the next one can use it

    @torch.inference_mode()
    def run(self, rows: Iterable[Row], should_stop: Callable[[], bool] = lambda: False) -> Iterator[Row]:
        """Rows with their tokens, or with an error, as they finish."""
        waiting = deque(in_order(rows))
        while waiting or self._rows:
            if should_stop():
                return
            yield from self._admit(waiting) if self._has_room(waiting) else self._step(waiting)

    def largest_difference(self, waiting: deque[Row]) -> float:
        """How far the logits of rows after one step together are from those alone, over the spread of the latter.

        Raises MemoryError if there is not enough for that.
        """
        n_rows = len(waiting)
        while waiting:
            self._admit(waiting)
        if len(self._rows) < n_rows:
            raise MemoryError
        together_BV = self._logits()
        alone_BV = torch.cat([self._whole([*row.prompt_ids, *row.tokens], keep=False)[0] for row in self._rows])
        off_B = (together_BV - alone_BV).float().square().mean(dim=-1).sqrt()
        return float((off_B / alone_BV.float().std(dim=-1)).max())

    def _has_room(self, waiting: deque[Row]) -> bool:
        if not waiting or len(self._rows) >= self.max_rows:
            return False
        width = max(row.n_stored + 1 for row in (*self._rows, waiting[0]))
        return not self._rows or (len(self._rows) + 1) * rounded_up(width) <= self.max_tokens

    def _admit(self, waiting: deque[Row]) -> list[Row]:
        """Read the next prompt and give it a slot; returns the row if it is finished already."""
        row = waiting.popleft()
        row.started = time.monotonic()
        ids = [*row.prompt_ids, *row.tokens]
        try:
            prompt = self._read(ids)
            self._put(prompt.cache, len(ids), n_to_come=len(waiting))
        except MEMORY_ERRORS as error:
            waiting.appendleft(row)
            return self._halve(waiting, really_memory(error))
        if waiting and self._n_shared(prompt.ids, waiting[0].prompt_ids):
            self._last = prompt
        self.counts.n_prompts += 1
        row.position = self._positions(ids)[:, 0, -1].tolist()
        candidates = candidates_of(prompt.logits_1V, self.decoding)
        tolerance = 0.0 if prompt.is_alone else TOLERANCE
        choice = choose(candidates, self.decoding, keys_of([row]), steps_of([row]), tolerance=tolerance)
        token = self._recheck(row, prompt.logits_1V[0]) if choice.is_close_B[0] else int(choice.tokens_B[0])
        self._rows.append(row)
        return self._take([token], candidates, first=len(self._rows) - 1)

    def _read(self, ids: list[int]) -> _Prompt:
        """Logits, keys and values of a prompt; where it begins like the one before, only the rest is computed."""
        last, self._last = self._last, None
        n_shared = self._n_shared(last.ids, ids) if last is not None else 0
        self.counts.n_shared_tokens += n_shared
        self.counts.n_prompt_tokens += len(ids) - n_shared
        if last is None or not n_shared:
            return _Prompt(ids, *self._whole(ids, keep=True), is_alone=True)
        if n_shared == len(ids):
            return last
        last.cache.crop(n_shared - len(last.ids))  # minus what goes
        output = self.model(
            input_ids=torch.tensor([ids[n_shared:]], device=self.model.device),
            position_ids=self._positions(ids)[0, :, n_shared:],
            past_key_values=last.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return _Prompt(ids, output.logits[:, -1], last.cache, is_alone=False)

    def _n_shared(self, before: Sequence[int], ids: Sequence[int]) -> int:
        """Tokens at the beginning of `ids` that need not be computed after `before`: all, some or none.

        All of them in any precision, since nothing changes. Some only where a token does not look ahead, and where
        rounding that the other prompt's length left behind is caught.
        """
        if list(before) == list(ids):
            return len(ids)
        if self._is_two_channel or not self._is_exact:
            return 0
        n = min(n_alike(before, ids), len(ids) - 1)  # the last token is computed, for its logits
        return n if n >= FEWEST_SHARED else 0

    def _step(self, waiting: deque[Row]) -> list[Row]:
        """One more token for every row; returns those that finished."""
        try:
            while len(self._rows) > 1 and len(self._rows) * self._width() > self.max_tokens:
                self._evict(len(self._rows) - 1, waiting)  # the newest row: the least work is lost
            logits_BV = self._logits()
            candidates = candidates_of(logits_BV, self.decoding)
            tolerance = TOLERANCE if self._is_exact else 0.0
            choice = choose(candidates, self.decoding, keys_of(self._rows), steps_of(self._rows), tolerance=tolerance)
            tokens = choice.tokens_B.tolist()
            for index in np.flatnonzero(choice.is_close_B) if self._is_exact else ():
                tokens[index] = self._recheck(self._rows[index], logits_BV[index])
        except MEMORY_ERRORS as error:
            return self._halve(waiting, really_memory(error))
        self.counts.n_steps += 1
        self.counts.n_rows_stepped += len(self._rows)
        self.counts.n_live_tokens += sum(row.n_stored + 1 for row in self._rows)
        for row in self._rows:
            row.position[-1] += 1  # of two channels, only the second counts on
        return self._take(tokens, candidates)

    def _logits(self) -> Tensor:
        """Logits of the next token of each row, (B, V), from one call with the newest tokens."""
        assert self._slots is not None  # noqa: S101 - a row in the batch has a slot
        n_idle = 0 if self._is_exact else self.max_rows - len(self._rows)
        width = self._width()
        self._slots.reserve(len(self._rows) + n_idle, width)
        device = self.model.device
        tokens_B = torch.tensor([row.tokens[-1] for row in self._rows] + [0] * n_idle, device=device)
        place_B = torch.tensor([row.n_stored for row in self._rows] + [0] * n_idle, device=device)
        channels = 2 if self._is_two_channel else 1
        position_BP = [[*row.position[:-1], row.position[-1] + 1] for row in self._rows] + [[0] * channels] * n_idle
        position_PB1 = torch.tensor(position_BP, device=device).T[..., None]
        may_see_BW = torch.arange(width, device=device) <= place_B[:, None]
        lengths = [row.n_stored + 1 for row in self._rows]
        n_idle_places = len(lengths) * width - sum(lengths)
        with by_row(self.model, lengths, n_idle_places * self._layer_bytes) as told:
            output = self.model(
                input_ids=tokens_B[:, None],
                position_ids=position_PB1 if self._is_two_channel else position_PB1[0],
                attention_mask=self._as_mask(may_see_BW)[:, None, None],
                past_key_values=self._slots.at(place_B, width),
                use_cache=True,
                logits_to_keep=1,
                **told,
            )
        logits_BV: Tensor = output.logits[: len(self._rows), -1]
        return logits_BV

    def _as_mask(self, may_see: Tensor) -> Tensor:
        """True = may see, or, where attention adds the mask to its scores, 0 and the lowest number."""
        if self._takes_bool_mask:
            return may_see
        dtype = self.model.dtype
        return torch.zeros(may_see.shape, dtype=dtype, device=may_see.device).masked_fill(
            ~may_see, torch.finfo(dtype).min
        )

    def _whole(self, ids: Sequence[int], *, keep: bool) -> tuple[Tensor, Any]:
        """Logits after a whole sequence computed alone, (1, V), and its keys and values if they are to be kept."""
        positions_P1T = self._positions(ids)
        output = self.model(
            input_ids=torch.tensor([ids], device=self.model.device),
            position_ids=positions_P1T if self._is_two_channel else positions_P1T[0],
            use_cache=keep,
            logits_to_keep=1,
        )
        return output.logits[:, -1], output.past_key_values if keep else None

    def _positions(self, ids: Sequence[int]) -> Tensor:
        """Positions of a whole sequence, (P, 1, T)."""
        if self._is_two_channel:
            return prompt_positions(torch.tensor([ids], device=self.model.device), None, self.model.config)
        return torch.arange(len(ids), device=self.model.device)[None, None]

    def _recheck(self, row: Row, logits_V: Tensor) -> int:
        """The row's token as the whole sequence alone decides it."""
        ids = [*row.prompt_ids, *row.tokens]
        alone_1V, _ = self._whole(ids, keep=False)
        self.counts.n_rechecks += 1
        self.counts.max_drift = max(self.counts.max_drift, float((alone_1V[0] - logits_V).abs().max()))
        candidates = candidates_of(alone_1V, self.decoding)
        return int(choose(candidates, self.decoding, keys_of([row]), steps_of([row])).tokens_B[0])

    def _take(self, tokens: Sequence[int], candidates: Candidates, first: int = 0) -> list[Row]:
        """Write the tokens of the rows from `first` on; rows that are finished leave the batch."""
        finished = []
        for index in reversed(range(first, len(self._rows))):
            row = self._rows[index]
            if candidates.is_broken_B[index - first]:
                row.error_code, row.error = (
                    "invalid_scores",
                    (
                        f"The model's scores are no numbers at token {len(row.tokens) + 1} of the response. "
                        "In float16 they may have overflowed: try bfloat16 or float32."
                    ),
                )
            else:
                row.tokens.append(tokens[index - first])
            if row.error_code or self._is_over(row):
                self._leave(index)
                finished.append(row)
        return finished[::-1]

    def _is_over(self, row: Row) -> bool:
        return len(row.tokens) >= self.decoding.max_new_tokens or row.tokens[-1] in self.end_token_ids

    def _leave(self, index: int) -> None:
        """Take a row out; the last row moves into its slot."""
        row, last = self._rows[index], self._rows.pop()
        row.seconds += time.monotonic() - row.started
        if last is not row:
            assert self._slots is not None  # noqa: S101 - as above
            self._rows[index] = last
            self._slots.move(len(self._rows), index)

    def _evict(self, index: int, waiting: deque[Row]) -> None:
        """Put a row back among those that wait; the tokens it has stay, and are read again with its prompt."""
        row = self._rows[index]
        self._leave(index)
        waiting.appendleft(row)

    def _halve(self, waiting: deque[Row], error: BaseException) -> list[Row]:
        """After running out of memory: half the rows wait for their turn. A row that is too large alone has failed."""
        self._last = None
        if not self._rows and self._slots is not None:  # what the rows before left behind may be all that is in the way
            self._slots = None
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()
            return []
        self.counts.n_halvings += 1
        if not self._rows:
            row = waiting.popleft()
            row.seconds += time.monotonic() - row.started
            row.error_code, row.error = "out_of_memory", f"There is not enough memory for this prompt alone: {error}"
            return [row]
        keep = len(self._rows) // 2
        while len(self._rows) > keep:
            self._evict(len(self._rows) - 1, waiting)
        self.max_rows = self.counts.rows_at_once = max(keep, 1)
        self._slots = None if not self._rows or self._slots is None else self._slots.shrunk(self.max_rows)
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        return []

    def _put(self, cache: Any, n: int, n_to_come: int) -> None:
        """Keys and values of n tokens into the next slot. Slots for those to come are made at once: growing copies."""
        if self._slots is None:
            self._slots = Slots(cache)
        slot, width = len(self._rows), max(self._width(), rounded_up(n + 1))
        useful = min(self.max_rows, self.max_tokens // width, slot + 1 + n_to_come)
        self._slots.reserve(max(slot + 1, useful), width)
        self._slots.put(slot, cache, n)

    def _width(self) -> int:
        return rounded_up(max((row.n_stored + 1 for row in self._rows), default=1))
