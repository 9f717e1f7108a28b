"""What the tuned model answers to held-out contexts, and how near that is to what was answered there.

The exported folder is loaded as any system is, so the scores are those of the files and not of a model in memory.
References are decoded from their tokens and so have gone through the same tokenizer as the answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metrics.text import CHATGLM, References, text_scores, text_statistics
from models_runtime.engine.batch import Batch
from models_runtime.engine.loading import load
from models_runtime.engine.protocol import Work
from models_runtime.engine.rows import Row
from models_runtime.engine.sampling import noise_key
from models_runtime.engine.speaker import LoadedSpeaker
from models_runtime.engine.spec import PRESETS, DecodingConfig
from training.finetune.config import FinetuneConfig
from training.finetune.samples import Samples
from training.finetune.sharding import DTYPES


@dataclass(frozen=True)
class Answers:
    """Texts in the order of the held-out samples. scores: metric ► {"value", "signature"}, in percent."""

    answers: tuple[str, ...]
    references: tuple[str, ...]
    decoding: DecodingConfig
    scores: dict[str, dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Without the texts."""
        return {"n": len(self.answers), "decoding": self.decoding.to_json(), "scores": self.scores}


def answer_held_out(
    base: Path,
    exported: Path,
    config: FinetuneConfig,
    held_out: Samples,
    *,
    device: torch.device,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Answers | None:
    """Answers to the first `n_generated` held-out samples, sampled as in the paper; None if it was asked to stop.

    on_progress(answered, of so many): at the start and after each answer.  should_stop: asked before every token.
    """
    n = min(config.n_generated, len(held_out))
    on_progress(0, n)
    is_adapter = config.method == "lora"
    loaded = load(
        base if is_adapter else exported,
        adapter=exported if is_adapter else None,
        dtype=DTYPES[config.precision],
        device=device,
    )
    speaker = LoadedSpeaker(loaded)
    decoding = DecodingConfig(
        **{
            **PRESETS["soulchat-paper"].decoding.to_json(),
            "max_input_tokens": config.max_context_tokens + 1,
            "max_new_tokens": config.max_target_tokens,
        }
    )
    n_first = 1 if loaded.family == "chatglm" else 0  # `<sop>` has a label, and is part of the prompt all the same
    rows, references = [], []
    for number in range(n):
        context, target = ([int(token) for token in part] for part in held_out[number])
        work = Work(str(number), 0, ())
        rows.append(Row(work, (*context, *target[:n_first]), 0, noise_key(config.seed, work.item, 0)))
        references.append(speaker.decode([token for token in target[n_first:] if token not in loaded.stop_ids]))
    texts: dict[int, str] = {}
    for row in Batch(loaded.model, loaded.stop_ids, decoding).run(rows, should_stop):
        written = [token for token in row.tokens if token not in loaded.stop_ids]
        texts[int(row.work.item)] = "" if row.error_code else speaker.decode(written)
        on_progress(len(texts), n)
    if len(texts) < n:
        return None
    answers = [texts[number] for number in range(n)]
    estimates = text_scores(text_statistics(answers, References(references)), CHATGLM)
    scores = {
        metric: {"value": estimate.value, "signature": estimate.signature} for metric, estimate in estimates.items()
    }
    return Answers(tuple(answers), tuple(references), decoding, scores)
