"""What a corpus is like, counted by hand beside it."""

from __future__ import annotations

import json
import random

from metrics import segmentation
from tests.training.corpora import TALK, dialogue
from training.corpus import statistics
from training.corpus.statistics import Collector, Term


def collect(*dialogues, n_terms=50):
    collector = Collector(n_terms)
    for one in dialogues:
        collector.add(one)
    return collector.result()


def test_it_counts_topics_rounds_and_lengths():
    found = collect(
        dialogue(topic="情绪"),
        dialogue("睡不着", "嗯。", topic="Emotion"),
        dialogue("在吗", topic="星座"),
        dialogue("在"),
    )
    assert found.n_dialogues == 4
    assert (found.topics["emotion"], found.topics[""], sum(found.topics.values())) == (2, 2, 4)
    assert len(found.topics) == 13  # twelve, and none of them
    assert found.unknown_topics == {"星座": 1}
    assert found.rounds == {0: 2, 1: 1, 3: 1}
    assert found.counsellor_characters == {2: 1, **{len(text): 1 for text in sorted(TALK[1::2], key=len)}}
    assert sum(found.client_characters.values()) == 6
    assert list(found.client_characters) == sorted(found.client_characters)


def test_terms_are_the_counsellors_words_without_those_that_say_little():
    found = collect(
        dialogue("焦虑焦虑焦虑", "焦虑的时候，可以深呼吸。"), dialogue("好", "深呼吸，再深呼吸，我们可以慢慢来。")
    )
    assert found.terms[0] == Term("深呼吸", 3, 2)
    words = [term.word for term in found.terms]
    assert "焦虑" in words and "时候" not in words and "可以" not in words and "，" not in words
    assert found.segmentation == segmentation.describe("words")


def test_a_word_counts_once_in_a_dialogue_wherever_chunks_end(monkeypatch):
    talks = [dialogue("问", "倾听倾听", "问", "倾听，安慰") for _ in range(5)]
    whole = collect(*talks)
    monkeypatch.setattr(statistics, "CHUNK", 1)
    assert collect(*talks) == whole
    assert Term("倾听", 15, 5) in whole.terms


def test_the_order_of_dialogues_does_not_matter():
    talks = [dialogue("问", text) for text in TALK]
    shuffled = random.Random(0).sample(talks, len(talks))
    assert collect(*talks) == collect(*shuffled)


def test_of_an_item_only_the_reply_is_counted():
    found = collect(dialogue(*TALK[:4], first_target=3))
    assert found.counsellor_characters == {len(TALK[3]): 1}
    assert found.client_characters == {}


def test_an_empty_corpus_has_empty_statistics():
    found = collect()
    assert (found.n_dialogues, found.terms, found.rounds, set(found.topics.values())) == (0, (), {}, {0})


def test_it_goes_into_json():
    found = collect(dialogue(topic="情绪"))
    data = json.loads(json.dumps(found.to_json()))
    assert data["rounds"] == {"3": 1}
    assert data["terms"][0].keys() == {"word", "n", "n_dialogues"}
