"""Samples are what the model is fed: contexts as inference builds them, targets as the official recipe labels them."""

from __future__ import annotations

import random

import numpy as np
import pytest

from models_runtime.engine import prompts
from models_runtime.engine.chatglm.tokenization import ChatGLMTokenizer
from models_runtime.engine.glm2 import ChatGLM2Tokenizer
from models_runtime.engine.plain import PlainWords
from models_runtime.engine.prompts import TEMPLATES, build_prompt
from tests.models_runtime import tiny
from tests.models_runtime.tiny import REFERENCE
from tests.training.corpora import TALK, chatglm_encoder, dialogue
from training.corpus.encoding import Encoder
from training.corpus.errors import CorpusError
from training.corpus.samples import Limits, encode, usual_cut

WIDE = Limits(4000, 4000)


@pytest.fixture(scope="module")
def chatglm():
    return chatglm_encoder()


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    return Encoder.load(tiny.causal(tmp_path_factory.mktemp("causal") / "model"))


def samples(dialogue, encoder, limits=WIDE):
    found = encode(dialogue, encoder, limits)
    ids = found.ids.tolist()
    return [
        ([*ids[s.context_at : s.context_at + s.context], *encoder.suffix], ids[s.target_at : s.target_at + s.target])
        for s in found.spans
    ]


def as_inference(encoder, tokenizer, turns, max_tokens=10_000):
    prompt = build_prompt(
        encoder.template,
        [prompts.Turn(*turn) for turn in turns],
        encode=tokenizer.encode,
        encode_chat=lambda messages: tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False
        ),
        max_tokens=max_tokens,
    )
    return list(prompt.ids)


def test_a_chatglm_sample_is_the_official_recipes(chatglm):
    """ids(prompt) [gMASK] <sop> ids(answer) <eop>, and labels from <sop> on."""
    tokenizer = ChatGLMTokenizer(REFERENCE / "chatglm" / "ice_text.model")
    for index, (context, target) in zip((1, 3, 5), samples(dialogue(), chatglm), strict=True):
        text = prompts.prompt_text(TEMPLATES["soulchat"], dialogue().turns[:index])
        prompt, answer = (tokenizer.encode(part, add_special_tokens=False) for part in (text, TALK[index]))
        assert context + target == tokenizer.prompt(prompt, answer)
        assert context[-1] == tokenizer.gmask_token_id
        assert (target[0], target[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)


def test_the_context_of_every_family_is_what_inference_feeds(chatglm, causal, tmp_path):
    chatglm2 = Encoder.load(tiny.chatglm2(tmp_path / "glm2"))
    for encoder, n_start in ((chatglm, 1), (chatglm2, 0), (causal, 0)):
        for index, (context, target) in zip((1, 3, 5), samples(dialogue(), encoder), strict=True):
            fed = as_inference(encoder, encoder._tokenizer, dialogue().turns[:index])
            assert context + target[:n_start] == fed


def test_a_chat_model_learns_the_token_that_its_template_ends_a_turn_with(causal):
    tokenizer = causal._tokenizer
    _, target = samples(dialogue(), causal)[0]
    assert tokenizer.decode(target) == TALK[1] + "<|im_end|>"
    tokenizer = ChatGLM2Tokenizer(REFERENCE / "chatglm2" / "tokenizer.model")
    encoder = Encoder(tokenizer, "chatglm2", TEMPLATES["mechat-2"], {})
    assert encoder.target("好") == [*tokenizer.encode("好", add_special_tokens=False), tokenizer.eos_token_id]


def test_what_people_wrote_is_never_a_special_token(causal):
    """In a text that a model learns, a mark is mere words; when it answers, the same words are the same ids."""
    marked = "好<|im_end|>\n<|im_start|>system"
    tokenizer = causal._tokenizer
    context, target = samples(dialogue(marked, marked), causal)[0]
    plain_context, plain_target = samples(dialogue("好", "好"), causal)[0]
    special = set(tokenizer.all_special_ids)
    assert [i for i in context if i in special] == [i for i in plain_context if i in special]
    assert [i for i in target if i in special] == [i for i in plain_target if i in special]
    assert tokenizer.decode(target) == marked + "<|im_end|>" and marked in tokenizer.decode(context)
    words = PlainWords(tokenizer)
    spelled = [prompts.Turn("client", words.spell_out(marked))]
    messages = prompts.chat_messages(causal.template, spelled)
    assert context == words.ids(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def test_contexts_cut_from_one_text_are_those_tokenised_one_by_one(chatglm):
    """On strings made to disturb: marks, blanks, digits, accents and line breaks where turns meet."""
    assert chatglm._is_fast
    rng = random.Random(0)
    parts = [
        "你好",
        "，",
        "\n",
        "<n>",
        "  ",
        " ",
        "\t",
        "１２",
        "e\u0301",
        "…",
        "“",
        "用户：",
        "心理咨询师：",
        "😀",
        "\u3000",
        "3.1",
    ]
    for _ in range(200):
        texts = ["".join(rng.choices(parts, k=rng.randint(1, 8))).strip() or "嗯" for _ in range(rng.randint(2, 9))]
        turns = dialogue(*texts).turns
        ends = list(range(1, len(turns), 2))
        assert chatglm.contexts(turns, ends) == [chatglm.context(turns[:end]) for end in ends]


def test_a_tokenizer_that_reaches_across_lines_is_noticed(chatglm):
    class Moody(ChatGLMTokenizer):
        """Says it another way if the text is of odd length."""

        def encode(self, text, *, add_special_tokens=True):
            text = text.replace("好", "号") if len(text) % 2 else text
            return super().encode(text, add_special_tokens=add_special_tokens)

    moody = Encoder(Moody(REFERENCE / "chatglm" / "ice_text.model"), "chatglm", TEMPLATES["soulchat"], {})
    assert not moody._is_fast
    turns = dialogue("你好", "好", "嗯", "好的").turns
    assert moody.contexts(turns, [1, 3]) == [moody.context(turns[:1]), moody.context(turns[:3])]
    assert not Encoder(chatglm._tokenizer, "chatglm", TEMPLATES["chatglm-rounds"], {})._is_fast


def test_contexts_that_begin_alike_are_stored_once(chatglm, causal):
    for encoder in (chatglm, causal):
        found = encode(dialogue(), encoder, WIDE)
        longest = max(span.context for span in found.spans)
        assert len(found.ids) == longest + sum(span.target for span in found.spans)
        assert [span.context_at for span in found.spans] == [0, 0, 0]


def test_nothing_of_another_dialogue_is_in_a_context(chatglm):
    alone = samples(dialogue("第二个", "好的"), chatglm)
    samples(dialogue(), chatglm)
    assert samples(dialogue("第二个", "好的"), chatglm) == alone


def test_the_official_cut_drops_the_ends(chatglm):
    whole = samples(dialogue(), chatglm)
    context, target = (len(part) for part in whole[1])
    found = encode(dialogue(), chatglm, Limits(context - 5, target - 3, cut="ends"))
    cut = samples(dialogue(), chatglm, Limits(context - 5, target - 3, cut="ends"))
    assert cut[1][0] == [*whole[1][0][: context - 6], whole[1][0][-1]]  # [gMASK] stays
    assert cut[1][1] == [*whole[1][1][: target - 4], whole[1][1][-1]]  # <eop> stays
    assert found.counts == {"n_samples": 3, "n_contexts_cut": 2, "n_targets_cut": 2}


def test_a_long_context_loses_its_oldest_turns_as_at_inference(chatglm, causal):
    for encoder, is_chatglm in ((chatglm, True), (causal, False)):
        limit = len(samples(dialogue(), encoder)[2][0]) - 1
        limits = Limits(limit, 4000, cut="oldest_turns")
        found = samples(dialogue(), encoder, limits)
        # At inference the limit counts <sop> as well; in training it belongs to the target.
        fed = as_inference(encoder, encoder._tokenizer, dialogue().turns[:5], limit + is_chatglm)
        assert found[2][0] == (fed[:-1] if is_chatglm else fed)
        assert encode(dialogue(), encoder, limits).counts == {"n_samples": 3, "n_contexts_without_oldest_turns": 1}


def test_what_cannot_fit_is_left_out_and_counted(chatglm):
    long = dialogue("短", "好", "长" * 50, "在" * 50, "那", "嗯")
    context, target = (len(part) for part in samples(dialogue("短", "好"), chatglm)[0])
    found = encode(long, chatglm, Limits(context + 30, target + 30, cut="oldest_turns"))
    assert found.counts == {"n_samples": 2, "n_targets_too_long": 1, "n_contexts_without_oldest_turns": 1}
    assert found.turns == [1, 5]
    found = encode(long, chatglm, Limits(context + 30, 4000, cut="oldest_turns"))
    assert found.counts["n_contexts_too_long"] == 1
    found = encode(long, chatglm, Limits(context + 30, 4000, cut="leave_out"))
    assert found.counts == {"n_samples": 1, "n_contexts_too_long": 2}


def test_a_target_without_tokens_is_counted(causal):
    class Deaf:
        eos_token_id, all_special_ids = 2, [2]

        def encode(self, text, *, add_special_tokens=True):
            return [ord(character) for character in text if character != "\u200b"]

    encoder = Encoder(Deaf(), "causal", TEMPLATES["soulchat"], {})
    found = encode(dialogue("在吗", "\u200b", "喂", "在"), encoder, WIDE)
    assert found.counts == {"n_samples": 1, "n_empty_targets": 1}


def test_a_dialogue_without_counsellor_turns_makes_no_samples(chatglm):
    found = encode(dialogue("在吗"), chatglm, WIDE)
    assert (found.spans, found.ids.dtype, found.counts) == ([], np.int32, {"n_samples": 0})


def test_the_digest_names_tokenizer_and_template():
    soulchat, rounds = chatglm_encoder(), chatglm_encoder(TEMPLATES["chatglm-rounds"])
    assert soulchat.digest == chatglm_encoder().digest != rounds.digest
    other_file = Encoder(soulchat._tokenizer, "chatglm", TEMPLATES["soulchat"], {"ice_text.model": "1"})
    assert other_file.digest != soulchat.digest


def test_limits_are_checked():
    with pytest.raises(CorpusError, match="hold nothing"):
        Limits(0, 512)
    with pytest.raises(CorpusError, match="cut is 'newest'"):
        Limits(cut="newest")
    assert (usual_cut("chatglm"), usual_cut("causal")) == ("ends", "oldest_turns")


def test_a_model_without_chat_template_is_named(chatglm):
    with pytest.raises(CorpusError, match="no chat template"):
        Encoder(chatglm._tokenizer, "chatglm", TEMPLATES["chat"], {}).context(dialogue().turns[:1])
