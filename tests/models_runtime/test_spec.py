"""DecodingConfig and SystemSpec: checked values, stable digests, JSON there and back."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from models_runtime.engine.spec import PRESETS, BadSpec, DecodingConfig, SystemSpec

SOULCHAT = PRESETS["soulchat-paper"].decoding
SPEC = SystemSpec("chatglm", "aa" * 32, None, "soulchat", "v-1", SOULCHAT)


def test_the_papers_decoding_says_what_is_not_in_the_paper():  # arXiv:2311.00273, 3.2 and appendix A
    preset = PRESETS["soulchat-paper"]
    assert (SOULCHAT.top_p, SOULCHAT.temperature) == (0.75, 0.95)
    assert (SOULCHAT.max_input_tokens, SOULCHAT.max_new_tokens) == (1536, 512)
    assert SOULCHAT.top_k == 50
    assert preset.implicit == ("top_k",)


def test_the_hidden_top_k_is_that_of_the_library():
    transformers = pytest.importorskip("transformers")
    assert transformers.GenerationConfig()._get_default_generation_params()["top_k"] == SOULCHAT.top_k


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"top_k": True}, "top_k"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_input_tokens": 2.5}, "max_input_tokens"),
        ({"is_sampled": False}, "is_sampled"),
        ({"is_sampled": 1}, "is_sampled"),
    ],
)
def test_a_value_out_of_range_is_named(change, named):
    with pytest.raises(BadSpec, match=named):
        replace(SOULCHAT, **change)


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, adapter_digest="bb", decoding=PRESETS["greedy"].decoding)])
def test_json_there_and_back(spec):
    assert SystemSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ([], "JSON object"),
        ({**SPEC.to_json(), "topp": 1}, "topp"),
        ({k: v for k, v in SPEC.to_json().items() if k != "weights_digest"}, "weights_digest"),
        ({**SPEC.to_json(), "decoding": None}, "DecodingConfig"),
        ({**SPEC.to_json(), "decoding": {"is_sampled": True, "min_p": 0.1}}, "min_p"),
        ({**SPEC.to_json(), "dtype": "float8"}, "dtype"),
        ({**SPEC.to_json(), "family": ""}, "family"),
    ],
)
def test_a_broken_spec_is_named(data, named):
    with pytest.raises(BadSpec, match=named):
        SystemSpec.from_json(data)


def test_every_field_changes_the_digest():
    others = [
        replace(SPEC, family="chatglm2"),
        replace(SPEC, weights_digest="cc"),
        replace(SPEC, adapter_digest="cc"),
        replace(SPEC, template_id="rounds"),
        replace(SPEC, template_version="v-2"),
        replace(SPEC, dtype="float16"),
        *(
            replace(SPEC, decoding=replace(SOULCHAT, **change))
            for change in (
                {"temperature": 0.9},
                {"top_p": 0.8},
                {"top_k": 0},
                {"max_input_tokens": 1024},
                {"max_new_tokens": 256},
            )
        ),
        replace(SPEC, decoding=PRESETS["greedy"].decoding),
    ]
    digests = {spec.digest for spec in (SPEC, *others)}
    assert len(digests) == len(others) + 1


def test_the_digest_is_the_same_in_another_process():
    script = (
        "import json, sys\nfrom models_runtime.engine.spec import SystemSpec\n"
        "print(SystemSpec.from_json(json.loads(sys.argv[1])).digest)"
    )
    turned = json.dumps(dict(reversed(SPEC.to_json().items())))
    done = subprocess.run([sys.executable, "-c", script, turned], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == SPEC.digest


def test_whole_numbers_and_fractions_are_one_config():
    as_int = DecodingConfig(is_sampled=True, temperature=1, top_p=1)
    assert replace(SPEC, decoding=as_int).digest == replace(SPEC, decoding=replace(as_int, temperature=1.0)).digest
