"""The loss scale of float16 training, as DeepSpeed moves it: small gradients are lifted over what float16 can hold.

Source: deepspeed/runtime/fp16/loss_scaler.py, with the values of THUDM/ChatGLM-6B's ptuning/deepspeed.json.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_SCALE = 2.0**16
WINDOW = 1000  # steps without overflow after which the scale doubles
PATIENCE = 2  # overflows before it halves; halving does not give it back, a doubling does


@dataclass
class LossScale:
    """value: what the loss is multiplied by; 1 and fixed where `is_dynamic` is false."""

    is_dynamic: bool
    value: float = 1.0
    n_good: int = 0  # steps since the last overflow
    patience: int = PATIENCE

    @classmethod
    def of(cls, precision: str) -> LossScale:
        return cls(True, FIRST_SCALE) if precision == "fp16" else cls(False)

    @property
    def is_at_its_end(self) -> bool:
        """An overflow now is no matter of scale."""
        return not self.is_dynamic or self.value <= 1.0

    def overflowed(self) -> None:
        self.n_good = 0
        if self.patience > 1:
            self.patience -= 1
        else:
            self.value = max(1.0, self.value / 2)

    def went_well(self) -> None:
        self.n_good += 1
        if self.is_dynamic and self.n_good % WINDOW == 0:
            self.value *= 2
            self.patience = PATIENCE
