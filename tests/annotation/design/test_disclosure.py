"""Sentences as counselling systems write them: half give the system away, half must be left in peace."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.design.disclosure import Disclosure, mask, scan

GIVEN_AWAY = [
    ("你好呀，我是ChatGLM，今天想聊些什么？", "self_identification"),
    ("我是一个人工智能助手，会认真听你说。", "self_identification"),
    ("我只是一个语言模型，但我愿意陪着你。", "self_identification"),
    ("其实我是由一家公司训练的大模型。", "self_identification"),
    ("我叫灵心，很愿意听你慢慢讲。", "self_identification"),
    ("你可以叫我豆包，我们聊聊吧。", "self_identification"),
    ("我是由很多工程师开发的，请放心说。", "self_identification"),
    ("我是ＡＩ助手，没有办法抱抱你。", "self_identification"),
    ("I'm an AI, yet I hear how heavy this is.", "self_identification"),
    ("I am just a large language model and cannot hug you.", "self_identification"),
    ("My name is ChatGPT and I'm here for you.", "self_identification"),
    ("I was trained by a research team to listen.", "self_identification"),
    ("作为一个人工智能，我不能替你做决定。", "ai_statement"),
    ("作为AI语言模型，我理解你的难过。", "ai_statement"),
    ("身为一款聊天机器人，我会尽力。", "ai_statement"),
    ("As an AI language model, I cannot feel, but I can listen.", "ai_statement"),
    ("Being a chatbot, I may miss your tone.", "ai_statement"),
    ("在我的训练数据里有很多类似的故事。", "ai_statement"),
    ("我没有真实的情感和意识，但我在听。", "ai_statement"),
    ("That lies beyond my knowledge cutoff.", "ai_statement"),
    ("这是OpenAI的技术带来的陪伴。", "vendor_or_model_name"),
    ("很多人也会和 Chat GPT 聊这些。", "vendor_or_model_name"),
    ("也许GPT-4会说得更好。", "vendor_or_model_name"),
    ("C​hatＧＬＭ2-6B可以陪你写日记。", "vendor_or_model_name"),
    ("智谱清言里也能记录心情。", "vendor_or_model_name"),
    ("由清华大学和一家公司共同研发。", "vendor_or_model_name"),
    ("这段话来自SoulChat。", "vendor_or_model_name"),
    ("灵心大模型祝你今晚睡个好觉。", "vendor_or_model_name"),
    ("MeChat会一直在这里。", "vendor_or_model_name"),
    ("讯飞星火认知大模型为你服务。", "vendor_or_model_name"),
    ("你也可以问问文心一言。", "vendor_or_model_name"),
    ("通义千问或Qwen2.5也提过这个办法。", "vendor_or_model_name"),
    ("DeepSeek建议先深呼吸。", "vendor_or_model_name"),
    ("Claude and Llama 3 would both tell you to rest.", "vendor_or_model_name"),
    ("Baichuan2-13B-Chat、InternLM、MindChat、EmoLLM都写过。", "vendor_or_model_name"),
    ("好好休息。<|im_end|>", "special_token"),
    ("[gMASK]<sop>我在听。", "special_token"),
    ("慢慢来。＜／ｓ＞", "special_token"),
    ("有困惑时，欢迎向我提问。", "house_phrase"),
    ("很抱歉，我无法回答这个问题。", "house_phrase"),
    ("如果你还有其他问题，请随时告诉我。", "house_phrase"),
    ("Is there anything else I can help you with today?", "house_phrase"),
]

LEFT_IN_PEACE = [
    "你说‘我是你的妈妈，你就得听我的’，这句话很伤人。",
    "你有足够的智慧面对这件事。",
    "Your colour, llamado or llamas, does not matter here.",
    "你去清华池泡个澡，放松一下也好。",
    "考上清华大学一直是你的梦想。",
    "你在清华的压力，我听到了。",
    "早上吃了两个豆包，胃口好一点了吗？",
    "生灵心里都有一处柔软。",
    "走进心灵，心理的伤也需要时间。",
    "星火燎原，一点点的改变也算数。",
    "海纳百川，你已经很包容了。",
    "盘古开天的故事你一直记得。",
    "我是咨询师小林，很高兴认识你。",
    "我是说，你已经尽力了。",
    "我是真的很心疼你，这段时间太难了。",
    "我是人工智能专业的老师，这个专业压力确实大。",
    "作为人工智能专业的学生，你面临很多竞争。",
    "作为一个母亲，你承担了太多。",
    "作为你的咨询师，我想先听你说。",
    "作为朋友，你已经做得很好了。",
    "你担心自己像机器人一样没有感觉。",
    "公司引入人工智能之后，你怕被裁员。",
    "如果你还有想说的，我一直在。",
    "很抱歉让你有这样的感受。",
    "对不起，我不能替他道歉，但我听到了你的委屈。",
    "我没有感情经历可以分享，不过我愿意听。",
    "由妈妈做主的日子让你喘不过气。",
    "As a mother of two, you carry a lot.",
    "As an AI researcher, you work long hours.",
    "I am an assistant professor too, said your friend.",
    "I'm a good listener, and I'm glad you came.",
    "Let me chat with you about the exam.",
    "She said 'I am a Gemini, I change my mind'.",
    "You love Claude Monet and quiet gardens.",
    "Your soul, chatting away, finds some peace.",
    "The spark between you two faded.",
    "I was trained as a nurse, you told me.",
    "I'm sorry, but I can hear that this hurts.",
    "I don't have all the answers, and that is fine.",
    "I am a fan of AI art, you said, and I smiled.",
    "I am talking to the AI every night, you told me.",
    "The baby grips the gptx toy.",
    "数学题 a < b 且 b > c，你越看越慌。",
    "[笑]你终于肯休息了。",
]


def test_the_corpus_is_large_and_even():
    assert len(GIVEN_AWAY) + len(LEFT_IN_PEACE) >= 60
    assert abs(len(GIVEN_AWAY) - len(LEFT_IN_PEACE)) <= 4


@pytest.mark.parametrize(("text", "kind"), GIVEN_AWAY)
def test_it_finds_what_gives_a_system_away(text, kind):
    assert kind in {hit.kind for hit in scan(text)}


@pytest.mark.parametrize("text", LEFT_IN_PEACE)
def test_it_leaves_ordinary_counselling_in_peace(text):
    assert scan(text) == ()


@pytest.mark.parametrize(("text", "kind"), GIVEN_AWAY)
def test_a_masked_text_gives_nothing_away(text, kind):
    assert scan(mask(text, scan(text))) == ()


def test_offsets_count_characters_of_the_original():
    text = "ﬁne，我是Ｃｈａｔ​ＧＬＭ。"  # a ligature that folds to two letters, and a zero-width space
    (hit,) = scan(text)
    assert hit == Disclosure(4, 14, "self_identification", "我是Ｃｈａｔ​ＧＬＭ")
    assert mask(text, [hit]) == "ﬁne，［…］。"


def test_it_finds_the_names_of_the_studys_own_systems():
    names = ("晴天 Bot", "Nova", "x", "")
    assert [hit.matched for hit in scan("ｎｏｖａ和晴天 bot都在，x也在。", names)] == ["ｎｏｖａ", "晴天 bot"]
    assert scan("An innovation that helps.", names) == ()


def test_a_name_with_special_characters_is_no_pattern():
    assert [hit.matched for hit in scan("C++ (v.1) and Cxx", ("C++ (v.1)",))] == ["C++ (v.1)"]


def test_places_that_overlap_share_one_placeholder():
    places = [Disclosure(1, 4, "house_phrase", "bcd"), Disclosure(3, 6, "house_phrase", "def")]
    assert mask("abcdefg", places, placeholder="_") == "a_g"
    assert mask("abcdefg", []) == "abcdefg"


@given(st.text(alphabet="我是由作为一个人工智能AI模型大chatGPT -<|>[]，。\u200b\n", max_size=80))
def test_hits_quote_the_text_and_are_in_order(text):
    hits = scan(text, ["chat"])
    assert all(text[hit.start : hit.end] == hit.matched and hit.matched for hit in hits)
    assert [hit.start for hit in hits] == sorted(hit.start for hit in hits)
    assert [hit.end for hit in hits] == sorted({hit.end for hit in hits})


@pytest.mark.parametrize(
    "unit", ["我是", "作为一个", "我是由", "I am a ", "<|", "as an ", "由清华", "chat ", "我没有", "["]
)
def test_hostile_text_takes_time_that_grows_with_its_length(unit):
    text = unit * (100_000 // len(unit))
    start = time.perf_counter()
    scan(text)
    assert time.perf_counter() - start < 5  # seconds for 100,000 characters, on a slow and shared machine
