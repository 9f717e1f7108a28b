import json

import pytest

from metrics.results import Estimate, ResultRow, Signature

N = {"items": 3, "ratings": 9}


def test_estimate_goes_to_json_and_back():
    estimate = Estimate(0.5, 0.4, 0.6, N, "percentile bootstrap by cluster", "name:x", notes=("few_clusters",))
    row = ResultRow("fleiss_kappa", "empathy", estimate, {"system": "A"}, {"point": "1"})
    told = json.loads(json.dumps(row.to_dict()))
    assert told["stratum"] == {"system": "A"}
    assert told["detail"] == {"point": "1"}
    assert told["estimate"] == {
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "n": N,
        "method": "percentile bootstrap by cluster",
        "signature": "name:x",
        "reason": None,
        "notes": ["few_clusters"],
    }


def test_an_undefined_estimate_carries_its_reason():
    assert Estimate(None, None, None, N, "no interval", "name:x", "no_variation").to_dict()["reason"] == "no_variation"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_no_number_leaves_as_nan_or_infinity(number):
    for value, low, high in ((number, 0.0, 1.0), (0.5, number, 1.0), (0.5, 0.0, number)):
        with pytest.raises(ValueError, match="undefined number is None"):
            Estimate(value, low, high, N, "", "")


def test_an_estimate_has_either_a_value_or_a_reason():
    with pytest.raises(ValueError, match="exactly one"):
        Estimate(None, None, None, N, "", "")
    with pytest.raises(ValueError, match="exactly one"):
        Estimate(0.5, None, None, N, "", "", "no_variation")


def test_an_interval_upside_down_is_refused():
    with pytest.raises(ValueError, match="upside down"):
        Estimate(0.5, 0.6, 0.4, N, "", "")


def test_a_signature_reads_like_those_of_sacrebleu():
    signature = Signature.of("fleiss_kappa", 1, scale="0,1,2", stratum=None, n_bootstrap=2000, seed=7)
    assert str(signature) == "name:fleiss_kappa|version:1|scale:0,1,2|n_bootstrap:2000|seed:7"


def test_a_setting_cannot_forge_another_part_of_the_signature():
    assert str(Signature.of("x", 1, system="B|seed:8")) == "name:x|version:1|system:B%7Cseed%3A8"


def test_an_estimate_survives_json():
    estimate = Estimate(0.5, 0.25, None, {"items": 3}, "exact", "name:x", None, ("few_clusters",))
    row = ResultRow("x", "empathy", estimate, {"system": "B"}, {"point": "0"})
    assert ResultRow.from_dict(json.loads(json.dumps(row.to_dict()))) == row
    undefined = Estimate(None, None, None, {}, "", "", "no_variation")
    assert Estimate.from_dict(json.loads(json.dumps(undefined.to_dict()))) == undefined


def test_rounding_hides_the_last_bits_of_a_float():
    low, high = Estimate(0.1 + 0.2, -1e-9, 1 / 3, N, "", ""), Estimate(0.3, -1e-9, 0.33333333333333337, N, "", "")
    assert low != high
    assert low.rounded(8) == high.rounded(8)
    assert low.rounded(8).high == 0.33333333
    assert str(Estimate(-1e-17, None, None, N, "", "").rounded(8).value) == "0.0"
