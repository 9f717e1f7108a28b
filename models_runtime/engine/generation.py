"""Dialogues in, responses out: words are put around what the running batch does with ids (see batch)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from models_runtime.engine.batch import Batch, Counts
from models_runtime.engine.errors import EngineError
from models_runtime.engine.memory import Limits
from models_runtime.engine.prompts import Template, build_prompt, response_text
from models_runtime.engine.protocol import Work
from models_runtime.engine.rows import Row
from models_runtime.engine.sampling import noise_key
from models_runtime.engine.speaker import Speaker
from models_runtime.engine.spec import DecodingConfig

FinishReason = Literal["stop", "length", "error"]


@dataclass(frozen=True)
class Generation:
    """One response, or why there is none.

    text: the response; raw_text: what the model wrote, before echoed labels and the like were taken off.
    tokens_in: of the prompt.  tokens_out: written, the end token included.  finish_reason: "stop": the model ended it;
    "length": cut at max_new_tokens; "error": there is no text, and error_code and error say why.
    seconds: from the prompt's turn to the last token, during which other rows ran too.
    """

    item: str
    repeat: int
    text: str
    raw_text: str
    tokens_in: int
    tokens_out: int
    finish_reason: FinishReason
    n_turns: int
    n_turns_cut: int
    seconds: float
    error_code: str = ""
    error: str = ""


def generate(
    speaker: Speaker,
    work: Iterable[Work],
    *,
    template: Template,
    decoding: DecodingConfig,
    seed: int,
    limits: Limits | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    counts: Counts | None = None,
) -> Iterator[Generation]:
    """Responses as they finish, in no particular order; each piece of work comes back exactly once.

    A piece that cannot be answered comes back with finish_reason "error" and does not disturb the others.
    should_stop: asked before every step; after a yes nothing more comes, and what was under way is dropped.
    """
    requests = []
    for one in work:
        if should_stop():
            return
        try:
            prompt = build_prompt(
                template,
                [turn._replace(text=speaker.as_plain(turn.text)) for turn in one.turns],
                encode=speaker.encode,
                encode_chat=speaker.encode_chat,
                max_tokens=decoding.max_input_tokens,
            )
        except EngineError as error:
            yield _failed(one, error.code, str(error))
            continue
        requests.append(Row(one, prompt.ids, prompt.n_turns_cut, noise_key(seed, one.item, one.repeat)))
    batch = Batch(speaker.model, speaker.end_token_ids, decoding, limits, counts)
    for row in batch.run(requests, should_stop):
        if row.error_code:
            yield _failed(row.work, row.error_code, row.error, row)
            continue
        ended = row.tokens[-1] in batch.end_token_ids
        raw = speaker.decode(row.tokens[:-1] if ended else row.tokens)
        text = response_text(template, raw)
        if not text:
            yield _failed(row.work, "empty_response", f"The model wrote no response, only {raw[:200]!r}.", row)
            continue
        yield Generation(
            item=row.work.item,
            repeat=row.work.repeat,
            text=text,
            raw_text=raw,
            tokens_in=len(row.prompt_ids),
            tokens_out=len(row.tokens),
            finish_reason="stop" if ended else "length",
            n_turns=len(row.work.turns) - row.n_turns_cut,
            n_turns_cut=row.n_turns_cut,
            seconds=row.seconds,
        )


def _failed(work: Work, code: str, message: str, row: Row | None = None) -> Generation:
    return Generation(
        item=work.item,
        repeat=work.repeat,
        text="",
        raw_text="",
        tokens_in=len(row.prompt_ids) if row else 0,
        tokens_out=len(row.tokens) if row else 0,
        finish_reason="error",
        n_turns=len(work.turns) - (row.n_turns_cut if row else 0),
        n_turns_cut=row.n_turns_cut if row else 0,
        seconds=row.seconds if row else 0.0,
        error_code=code,
        error=message,
    )
