import numpy as np
import pytest

from metrics.text import CHAR, CHATGLM, REFERENCE, References, system_statistics, tokens_of
from tests.metrics.sentences import compose

EVERYTHING = tokens_of(CHATGLM, REFERENCE, CHAR)


@pytest.fixture(scope="session")
def rivals():
    """Two systems on 60 replies, six to a dialogue; the first copies a sentence of the reference more often."""
    rng, references = np.random.default_rng(4), compose(60, seed=20)
    systems = {
        name: [r[: len(r) // 2] + own[:40] if rng.random() < share else own
               for r, own in zip(references, compose(60, seed=seed), strict=True)]
        for name, share, seed in (("good", 0.5, 21), ("poor", 0.3, 22))
    }  # fmt: skip
    return [
        *system_statistics(systems, References(references, tokens=EVERYTHING)).values(),
        np.arange(60) // 6,
        systems,
    ]
