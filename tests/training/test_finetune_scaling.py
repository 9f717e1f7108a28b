from __future__ import annotations

from training.finetune.scaling import LossScale


def test_it_moves_as_deepspeeds_does():
    """Read off loss_scaler.py: the first overflow is forgiven, each later one halves, 1000 good steps double."""
    scale = LossScale.of("fp16")
    values = []
    for overflows in [True, True, True, *[False] * 1000, True, True]:
        scale.overflowed() if overflows else scale.went_well()
        values.append(scale.value)
    assert values[:3] == [2.0**16, 2.0**15, 2.0**14]
    assert set(values[3:1002]) == {2.0**14} and values[1002] == 2.0**15
    assert values[1003:] == [2.0**15, 2.0**14]  # the doubling brought one more overflow to forgive


def test_it_ends_at_1():
    scale = LossScale(True, 2.0, patience=1)
    assert not scale.is_at_its_end
    scale.overflowed()
    scale.overflowed()
    assert scale.value == 1.0 and scale.is_at_its_end


def test_other_precisions_have_none():
    for precision in ("bf16", "fp32"):
        scale = LossScale.of(precision)
        for _ in range(2000):
            scale.went_well()
        assert scale.value == 1.0 and scale.is_at_its_end
