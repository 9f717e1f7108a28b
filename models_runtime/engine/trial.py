"""Whether a model gives in a batch what it gives alone, tried before the first item.

The running batch tells a model by mask and positions which places are whose. Most architectures of transformers listen
to that; some take neither, or keep their past in a form of their own, and would fail or, worse, answer otherwise.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch

from models_runtime.engine.batch import Batch
from models_runtime.engine.errors import EngineError, WrongArchitecture
from models_runtime.engine.memory import Limits, is_out_of_memory
from models_runtime.engine.protocol import Work
from models_runtime.engine.rows import Row
from models_runtime.engine.spec import DecodingConfig

LENGTHS = (11, 5)  # of two prompts, so that one row ends before the other
# Of the spread of the logits. Measured on random models: 2e-6 in float32, 0.03 in bfloat16, 0.9 without the mask.
MOST_OFF = {torch.float32: 1e-3}
MOST_OFF_IN_HALF = 0.3
INSTEAD = "Serve it behind an API instead."


@torch.inference_mode()
def try_in_batch(model: Any) -> None:
    """Raises WrongArchitecture unless two rows of one batch get the logits that each of them gets alone.

    What runs out of memory here is left for the run itself to say.
    """
    words = int(model.get_input_embeddings().num_embeddings)
    prompts = [tuple((3 + 7 * place + row) % words for place in range(n)) for row, n in enumerate(LENGTHS)]
    waiting = deque(Row(Work(str(row), 0, ()), ids, 0, np.uint64(0)) for row, ids in enumerate(prompts))
    batch = Batch(model, (), DecodingConfig(is_sampled=False), Limits(len(prompts), 2**40))
    try:
        off = batch.largest_difference(waiting)
    except EngineError:
        raise
    except Exception as error:  # each architecture fails in its own way
        if is_out_of_memory(error):
            return
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise WrongArchitecture(f"This model cannot run in a batch ({reason}). {INSTEAD}") from error
    if off > MOST_OFF.get(model.dtype, MOST_OFF_IN_HALF):
        raise WrongArchitecture(f"This model answers otherwise in a batch than alone. {INSTEAD}")
