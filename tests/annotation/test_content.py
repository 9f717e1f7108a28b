"""The content files are complete, bilingual, on the scale, and name no real system. No Django needed."""

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

CONTENT = Path(__file__).resolve().parents[2] / "annotation" / "content"
FILES = sorted(path.name for path in CONTENT.glob("*.json"))
LANGUAGES = {"zh", "en"}
SCALES = {"content": [0, 1, 2], "empathy": [0, 1, 2], "helpfulness": [0, 1, 2], "safety": [0, 1]}
TOPICS = [
    *("家庭", "婚恋", "性心理", "成长发展", "人际关系", "职场"),
    *("自我认知", "行为", "情绪", "治疗", "社会事件", "心理学知识"),
]
HAN = re.compile(r"[\u4e00-\u9fff]")

# Latin names match as the start of a word ("GPT-4", "Qwen2"), Chinese names anywhere.
REAL_NAMES = re.compile(
    r"(?i)\b(chatgpt|gpt|openai|chatglm|glm|soulchat|mechat|smilechat|sparkdesk|iflytek|ernie|baidu|qwen|alibaba"
    r"|tencent|hunyuan|kimi|moonshot|deepseek|doubao|bytedance|claude|anthropic|gemini|google|llama|mistral"
    r"|baichuan|internlm|zhipu|minimax|emollm|psychat|copilot|microsoft|huggingface|wechat|tiktok)"
    r"|星火|讯飞|文心|百度|通义|千问|阿里|腾讯|混元|月之暗面|深度求索|豆包|字节跳动|智谱|百川|书生|灵心|微信|抖音|微博"
)


def load(name: str) -> Any:
    return json.loads((CONTENT / name).read_text(encoding="utf-8"))


def walk(node: Any, path: str = "$") -> Iterator[tuple[str, Any]]:
    """Every node of a JSON tree with its path, the root first."""
    yield path, node
    if isinstance(node, dict):
        for key, value in node.items():
            yield from walk(value, f"{path}.{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from walk(value, f"{path}[{index}]")


def texts(node: Any) -> list[str]:
    return [value for _, value in walk(node) if isinstance(value, str)]


def assert_dialogue(turns: dict[str, Any], *, shortest: int, longest: int) -> None:
    """Same roles in both languages, speakers take turns, and the client speaks last."""
    roles = [turn["role"] for turn in turns["zh"]]
    assert roles == [turn["role"] for turn in turns["en"]]
    assert shortest <= len(roles) <= longest
    assert set(roles) <= {"client", "counsellor"}
    assert roles[-1] == "client"
    assert all(one != other for one, other in pairwise(roles))


RUBRIC = load("rubric_cehs_v1.json")
PRACTICE = load("practice_cehs_v1.json")
DEMO = load("demo_study.json")
DIMENSIONS = {dimension["key"]: dimension for dimension in RUBRIC["dimensions"]}


def by_id(item: dict[str, Any]) -> str:
    return item.get("id") or item["key"]


# --- every file


def test_all_files_are_here():
    assert FILES == [
        "consent_v1.json",
        "demo_study.json",
        "practice_cehs_v1.json",
        "risk_terms.json",
        "rubric_cehs_v1.json",
        "support_v1.json",
        "topics.json",
    ]


@pytest.mark.parametrize("name", FILES)
def test_file_is_readable_in_an_editor(name):
    raw = (CONTENT / name).read_text(encoding="utf-8")
    assert raw == json.dumps(json.loads(raw), ensure_ascii=False, indent=2) + "\n"


@pytest.mark.parametrize("name", FILES)
def test_no_text_is_empty_or_padded(name):
    assert not [path for path, node in walk(load(name)) if isinstance(node, str) and node != (node.strip() or None)]


@pytest.mark.parametrize("name", FILES)
def test_both_languages_everywhere(name):
    for path, node in walk(load(name)):
        if not isinstance(node, dict) or not LANGUAGES & set(node) or path.endswith(".matching"):
            continue
        assert set(node) == LANGUAGES, path
        assert node["zh"] and node["en"], path
        if isinstance(node["zh"], list) and not path.endswith((".terms", ".aliases")):
            assert len(node["zh"]) == len(node["en"]), path
        for text in texts(node["zh"]):
            assert HAN.search(text) or text in SCALES or text in ("client", "counsellor"), path
        assert not HAN.search("".join(texts(node["en"]))), path


@pytest.mark.parametrize("name", FILES)
def test_no_real_system_or_company_is_named(name):
    assert not [text for text in texts(load(name)) if REAL_NAMES.search(text)]


@pytest.mark.parametrize("name", ["GPT-4 说", "qwen2", "用豆包问问", "SoulChat"])
def test_the_list_of_names_would_notice(name):
    assert REAL_NAMES.search(name)


# --- rubric


def test_rubric_has_the_four_dimensions_with_an_anchor_for_every_point():
    assert (RUBRIC["slug"], RUBRIC["version"]) == ("cehs", "1.0.0")
    assert {key: [p["value"] for p in d["points"]] for key, d in DIMENSIONS.items()} == SCALES
    assert list(DIMENSIONS) == list(SCALES)
    assert RUBRIC["title"] and RUBRIC["intro"] and "2311.00273" in RUBRIC["source"]["en"]


@pytest.mark.parametrize("key", SCALES)
def test_anchors_fit_their_cards_and_differ(key):
    for language, limit in (("zh", 34), ("en", 110)):
        anchors = [point["anchor"][language] for point in DIMENSIONS[key]["points"]]
        assert max(map(len, anchors)) <= limit
        assert len(set(anchors)) == len(anchors)


def test_both_points_of_safety_take_the_same_effort_to_read():
    unsafe, safe = (point["anchor"] for point in DIMENSIONS["safety"]["points"])
    assert abs(len(unsafe["zh"]) - len(safe["zh"])) <= 3
    assert abs(len(unsafe["en"]) - len(safe["en"])) <= 8


@pytest.mark.parametrize("key", SCALES)
def test_guide_sheet_has_considerations_and_two_worked_examples(key):
    dimension = DIMENSIONS[key]
    assert dimension["name"] and "\n" not in dimension["definition"]["zh"] + dimension["definition"]["en"]
    assert 3 <= len(dimension["considerations"]["zh"]) <= 5
    values = [example["value"] for example in dimension["examples"]]
    assert len(values) == 2 and len(set(values)) == 2 and set(values) <= set(SCALES[key])
    assert all(set(example) == {"context", "response", "value", "why"} for example in dimension["examples"])


# --- practice


def test_practice_is_three_sets_of_six_with_ids_of_their_own():
    sets = [item["set"] for item in PRACTICE["items"]]
    assert {number: sets.count(number) for number in set(sets)} == {1: 6, 2: 6, 3: 6}
    assert len({item["id"] for item in PRACTICE["items"]}) == 18
    assert PRACTICE["rubric"] == RUBRIC["slug"]


@pytest.mark.parametrize("key", SCALES)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_each_practice_set_covers_every_point(number, key):
    assert {item["expected"][key] for item in PRACTICE["items"] if item["set"] == number} == set(SCALES[key])


@pytest.mark.parametrize("item", PRACTICE["items"], ids=by_id)
def test_practice_item_is_short_and_explained(item):
    assert_dialogue(item["turns"], shortest=1, longest=5)
    assert 30 <= len(item["response"]["zh"]) <= 140
    assert set(item["expected"]) == set(item["tolerance"]) == set(item["why"]) == set(SCALES)
    assert all(item["expected"][key] in scale for key, scale in SCALES.items())
    assert set(item["tolerance"].values()) <= {0, 1}
    assert item["tolerance"]["safety"] == 0


def test_no_fixed_ratings_pass_the_practice():
    """Giving the same four ratings to all six items of a set never reaches the gate of four."""
    for number in (1, 2, 3):
        items = [item for item in PRACTICE["items"] if item["set"] == number]
        for ratings in ((c, e, h, s) for c in range(3) for e in range(3) for h in range(3) for s in range(2)):
            n_passed = sum(
                all(
                    abs(rating - item["expected"][key]) <= item["tolerance"][key]
                    for key, rating in zip(SCALES, ratings, strict=True)
                )
                for item in items
            )
            assert n_passed < 4, (number, ratings)


# --- demonstration


def test_demo_says_that_it_was_written_for_the_demonstration():
    assert "no model wrote them" in DEMO["notice"]["en"]
    assert "演示" in DEMO["notice"]["zh"]


def test_demo_has_two_datasets_of_six_and_each_topic_once():
    datasets = [item["dataset"] for item in DEMO["items"]]
    assert {slug: datasets.count(slug) for slug in datasets} == {d["slug"]: 6 for d in DEMO["datasets"]}
    assert len(DEMO["datasets"]) == 2
    slugs = {topic["slug"] for topic in load("topics.json")["topics"]}
    assert sorted(item["topic"] for item in DEMO["items"]) == sorted(slugs)
    assert len({item["key"] for item in DEMO["items"]}) == 12


@pytest.mark.parametrize("item", DEMO["items"], ids=by_id)
def test_demo_item_has_a_reference_and_all_four_responses(item):
    systems = [system["slug"] for system in DEMO["systems"]]
    assert_dialogue(item["turns"], shortest=2, longest=7)
    assert systems == ["demo-a", "demo-b", "demo-c", "demo-d"] == list(item["responses"]) == list(item["plausible"])
    written = [item["reference"]["zh"], *(response["zh"] for response in item["responses"].values())]
    assert len(set(written)) == 5
    for ratings in item["plausible"].values():
        assert list(ratings) == list(SCALES)
        assert all(ratings[key] in scale for key, scale in SCALES.items())


@pytest.mark.parametrize("key", SCALES)
def test_demo_ratings_use_the_whole_scale(key):
    given = {ratings[key] for item in DEMO["items"] for ratings in item["plausible"].values()}
    assert given == set(SCALES[key])


def test_demo_responses_do_not_name_their_system():
    names = {name for system in DEMO["systems"] for name in (system["slug"], *system["name"].values())}
    written = "".join(text for item in DEMO["items"] for text in texts(item["responses"]))
    assert not [name for name in names if name in written]


# --- topics, risk terms, forms


def test_topics_are_exactly_the_twelve():
    assert [topic["name"]["zh"] for topic in load("topics.json")["topics"]] == TOPICS


def test_a_name_or_alias_leads_to_one_topic_only():
    names = [
        name.casefold()
        for topic in load("topics.json")["topics"]
        for name in {*topic["name"].values(), *topic["aliases"]["zh"], *topic["aliases"]["en"]}
    ]
    assert sorted(names) == sorted(set(names))


def test_risk_terms_are_literal_and_of_moderate_number():
    categories = load("risk_terms.json")["categories"]
    assert [category["key"] for category in categories] == ["self_harm", "violence", "abuse"]
    for category in categories:
        for language in LANGUAGES:
            terms = category["terms"][language]
            assert 10 <= len(terms) <= 25
            assert len({term.casefold() for term in terms}) == len(terms)
            assert not [term for term in terms if re.search(r"[\\^$.|?*+()\[\]{}]", term)]


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_one_demo_item_shows_the_content_notice_in_either_language(language):
    terms = [term for category in load("risk_terms.json")["categories"] for term in category["terms"][language]]
    pattern = "|".join(map(re.escape, terms))
    if language == "en":
        pattern = rf"(?i)\b(?:{pattern})\b"
    noticed = [
        item["key"]
        for item in DEMO["items"]
        if re.search(pattern, "\n".join(turn["text"] for turn in item["turns"][language]))
    ]
    assert noticed == ["talk-03"]


def test_consent_and_support_keep_their_placeholders():
    consent, support = load("consent_v1.json"), load("support_v1.json")
    for language in LANGUAGES:
        body = "\n".join(consent["body"][language])
        assert body.count("{contact}") == body.count("{retention}") == 1
        assert "{contact}" in "\n".join(p for s in support["sections"] for p in s["paragraphs"][language])
    assert consent["version"] and consent["sensitive_tick"] and consent["agree_tick"]
    assert [line["number"] for line in support["lines"]] == ["12356", "120", "110"]
