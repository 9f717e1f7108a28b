"""A file comes in whole or not at all; a second time it changes nothing."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
from django.core.management import CommandError, call_command

from annotation.errors import ImportRefused
from annotation.formats.problems import Problem
from annotation.formats.source import Source
from annotation.models import AuditEvent, Dataset, ImportRecord, Item, Response, System
from annotation.problems import sentence
from annotation.risk import risks_of
from annotation.services import importing
from annotation.services.importing import ItemOptions, NewDataset, ResponseOptions, import_items, import_responses
from annotation.services.responses import ConflictingResponse, EmptyResponse, record_response
from annotation.services.systems import (
    PRESETS,
    SystemRefused,
    ensure_reference_responses,
    register_preset,
    register_system,
    update_system,
)
from annotation.topics import slug_of
from tests import factories

pytestmark = pytest.mark.django_db

HOSTILE = [
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    '=HYPERLINK("http://evil.example","x")',
    "\u202egnp.exe\u202c \u2066x\u2069",
    "{{ 7*7 }} {% debug %} %(name)s ${jndi:ldap://x}",
    "'; DROP TABLE annotation_item; --",
]


@pytest.fixture
def smile(tmp_path):
    """A release of 12 dialogues of 1 to 4 rounds; every turn names its dialogue."""
    path = tmp_path / "smile.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(12):
            turns = []
            for n in range(number % 4 + 1):
                turns.append({"role": "client", "content": f"<{number}> 问 {n}"})
                turns.append({"role": "counselor", "content": f"<{number}> 答 {n}"})
            archive.writestr(f"data/{number}.json", json.dumps(turns))
    return Source(path, "smile.zip")


@pytest.fixture
def dataset(db) -> Dataset:
    return factories.make_dataset("pilot")


@pytest.fixture
def lines(tmp_path):
    """lines(row, row, …, name=…) -> a source of JSONL."""

    def make(*rows: dict, name: str = "rows.jsonl") -> Source:
        path = tmp_path / f"{abs(hash(json.dumps(rows)))}"
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
        return Source(path, name)

    return make


def item(key: str, text: str = "你好", **fields) -> dict:
    return {"key": key, "turns": [{"role": "client", "content": text}], **fields}


def answer(key: str, text: str = "我在听。", system: str = "soulchat", **fields) -> dict:
    return {"item": key, "system": system, "response": text, **fields}


def refused(**arguments) -> list[Problem]:
    """The problems of an import that must be refused; nothing at all may have changed."""
    tables = (Dataset, ImportRecord, Item, Response, System, AuditEvent)
    before = [list(table.objects.order_by("pk").values()) for table in tables]
    run = import_responses if "responses" in arguments else import_items
    arguments["source"] = arguments.pop("responses", None) or arguments.pop("items")
    with pytest.raises(ImportRefused) as caught:
        run(**{"by": None, **arguments})
    assert [list(table.objects.order_by("pk").values()) for table in tables] == before
    return [Problem.from_json(problem) for problem in caught.value.detail["problems"]]


# --- Items ----------------------------------------------------------------------------------------------


def test_every_counsellor_turn_makes_an_item(smile, admin):
    result = import_items(source=smile, dataset=NewDataset("smile", "SMILE"), by=admin)
    assert not result.is_repeat
    assert result.counts["n_new"] == sum(n % 4 + 1 for n in range(12)) == Item.objects.count()
    assert result.counts["encoding"] == "utf-8"
    assert Dataset.objects.get(slug="smile").n_items == 30
    last = Item.objects.get(key="3#4")
    assert [turn["text"] for turn in last.turns][-1] == "<3> 问 3"
    assert last.reference == "<3> 答 3"
    assert last.dialogue_key == "3"
    assert last.n_characters == sum(len(turn["text"]) for turn in last.turns)
    assert AuditEvent.objects.get(action="import.items").actor == admin


@pytest.mark.parametrize("one_per_dialogue", [True, False])
def test_no_turn_of_another_dialogue_gets_into_an_item(smile, one_per_dialogue):
    """The published conversion script of SMILECHAT never resets its history: two thirds of its samples mix them."""
    options = ItemOptions(one_per_dialogue=one_per_dialogue)
    import_items(source=smile, dataset=NewDataset("smile", "SMILE"), options=options, by=None)
    for found in Item.objects.all():
        own = f"<{found.dialogue_key}>"
        texts = [turn["text"] for turn in found.turns] + [found.reference]
        assert all(text.startswith(own) for text in texts)
        assert found.turns[-1]["role"] == "client"
        assert len(found.turns) % 2 == 1


def test_the_same_file_again_changes_nothing_and_says_so(smile, admin):
    first = import_items(source=smile, dataset=NewDataset("smile", "SMILE"), by=admin)
    n_events = AuditEvent.objects.count()
    again = import_items(source=smile, dataset=Dataset.objects.get(slug="smile"), by=admin)
    assert again.is_repeat and again.record == first.record
    assert again.counts == first.counts
    assert (Item.objects.count(), ImportRecord.objects.count(), AuditEvent.objects.count()) == (30, 1, n_events)


def test_other_options_are_another_import_and_find_the_same_items_unchanged(smile):
    import_items(source=smile, dataset=NewDataset("smile", "SMILE"), by=None)
    smaller = ItemOptions(sample=4, seed=3)
    result = import_items(source=smile, dataset=NewDataset("smile", "SMILE"), options=smaller, by=None)
    assert not result.is_repeat
    assert result.counts["n_new"] == 0
    drawn = _drawn(smile, smaller)
    items = Item.objects.filter(dataset__slug="smile")
    assert result.counts["n_unchanged"] == items.filter(dialogue_key__in=drawn).count()
    assert Dataset.objects.get(slug="smile").n_items == items.count() == 30


def _drawn(source: Source, options: ItemOptions) -> set[str]:
    slug = f"drawn-{Dataset.objects.count()}"
    import_items(source=source, dataset=NewDataset(slug, slug), options=options, by=None)
    return set(Item.objects.filter(dataset__slug=slug).values_list("dialogue_key", flat=True))


def test_a_sample_is_of_dialogues_and_repeatable(smile):
    one, two, other = (_drawn(smile, ItemOptions(sample=5, seed=seed)) for seed in (1, 1, 2))
    assert one == two != other
    assert len(one) == 5


def test_a_sample_of_more_than_there_is_says_how_many_there_are(smile):
    problems = refused(items=smile, dataset=NewDataset("smile", "SMILE"), options=ItemOptions(sample=13))
    assert "13" in sentence(problems[0]) and "12" in sentence(problems[0])


def test_topics_are_recognised_and_unknown_labels_kept(lines, dataset):
    rows = lines(item("1", topic="成长"), item("2", topic=" Family "), item("3", topic="星座"), item("4"))
    import_items(source=rows, dataset=dataset, by=None)
    found = list(Item.objects.order_by("key").values_list("topic", "topic_label"))
    assert found == [("growth", "成长"), ("family", "Family"), ("", "星座"), ("", "")]


def test_difficult_content_is_marked(lines, dataset):
    rows = lines(item("1", "我不想活了"), item("2", "He hits me, and I was abused."), item("3", "We met at the party."))
    result = import_items(source=rows, dataset=dataset, by=None)
    assert list(Item.objects.order_by("key").values_list("risks", flat=True)) == [
        ["self_harm"],
        ["violence", "abuse"],
        [],
    ]
    assert result.counts["n_with_risks"] == 2


def test_hostile_texts_come_through_as_they_are(lines, dataset):
    rows = lines(*(item(f"{n} {text}", text, reference=text, topic=text) for n, text in enumerate(HOSTILE)))
    import_items(source=rows, dataset=dataset, by=None)
    for n, text in enumerate(HOSTILE):
        found = Item.objects.get(key=f"{n} {text}")
        assert found.turns[0]["text"] == found.reference == found.topic_label == text


def test_duplicate_dialogues_are_kept_once_and_counted(tmp_path):
    path = tmp_path / "x.zip"
    talk = [{"role": "client", "content": "a"}, {"role": "counselor", "content": "b"}]
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("10", "9", "copy/9"):
            archive.writestr(f"{name}.json", json.dumps(talk))
        archive.writestr("11.json", json.dumps(talk[:1]))
    result = import_items(source=Source(path, "x.zip"), dataset=NewDataset("d", "D"), by=None)
    assert [found.key for found in Item.objects.all()] == ["9#1"]
    assert result.counts["n_duplicates"] == 2
    assert result.counts["n_without_reply"] == 1


def test_one_name_for_two_dialogues_is_a_problem(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for folder, text in (("a", "x"), ("b", "y")):
            talk = [{"role": "client", "content": text}, {"role": "counselor", "content": "b"}]
            archive.writestr(f"{folder}/1.json", json.dumps(talk))
    (problem,) = refused(items=Source(path, "x.zip"), dataset=NewDataset("d", "D"))
    assert problem.code == "duplicate_key"
    assert "b/1.json" in sentence(problem) and "a/1.json" in sentence(problem)


def test_duplicate_keys_of_rows_name_both_places(lines, dataset):
    (problem,) = refused(items=lines(item("1"), item("2"), item("1")), dataset=dataset)
    assert "line 3" in sentence(problem) and "line 1" in sentence(problem)


def test_an_item_that_is_there_with_other_content_is_a_problem(lines, dataset):
    import_items(source=lines(item("1", "old"), item("2", "same")), dataset=dataset, by=None)
    for changed in (item("1", "new"), item("1", "old", reference="r"), item("1", "old", topic="家庭")):
        (problem,) = refused(items=lines(item("3"), item("2", "same"), changed), dataset=dataset)
        assert problem.code == "conflicting_item"
        assert problem.place.number == 3


def test_one_bad_line_among_many_leaves_nothing_behind(lines):
    rows = lines(*(item(str(n)) for n in range(1200)), {"key": "bad", "turns": []})
    (problem,) = refused(items=rows, dataset=NewDataset("new", "New"))
    assert problem.place.number == 1201


def test_a_conflict_late_in_the_writing_leaves_nothing_behind(lines, dataset):
    import_items(source=lines(item("1299", "old")), dataset=dataset, by=None)
    refused(items=lines(*(item(str(n)) for n in range(1300))), dataset=dataset)


@pytest.mark.parametrize("content", ["", "[]", "{}", "\n\n", "key,turns\n"])
def test_a_file_with_nothing_in_it_is_refused(tmp_path, dataset, content):
    path = tmp_path / "x"
    path.write_text(content)
    assert refused(items=Source(path, "x.csv"), dataset=dataset)


def test_an_unknown_format_says_which_are_known(tmp_path, dataset):
    path = tmp_path / "x"
    path.write_bytes(b"\x89PNG\r\n\x00")
    (problem,) = refused(items=Source(path, "x.png"), dataset=dataset)
    assert "smilechat" in sentence(problem)
    path.write_bytes(b"[]")
    (problem,) = refused(responses=Source(path, "x.json"), dataset=dataset)
    assert problem.code == "wrong_format"


def test_a_file_that_changes_meanwhile_is_refused(lines, dataset):
    rows = lines(item("1"))

    def write_to_it(stage, done, total):
        rows.path.write_text(json.dumps(item("2", "and more")))

    (problem,) = refused(items=rows, dataset=dataset, on_progress=write_to_it)
    assert problem.code == "changed"


def test_progress_is_told_from_reading_to_writing(smile):
    told = []
    import_items(
        source=smile,
        dataset=NewDataset("smile", "SMILE"),
        by=None,
        on_progress=lambda stage, done, total: told.append((stage, total)),
    )
    assert told[0][0] == importing.CHECKING
    assert told[-1] == (importing.WRITING, 30)


def test_an_error_in_the_middle_of_writing_leaves_nothing_behind(smile):
    class Interrupted(Exception):
        pass

    def stop(stage, done, total):
        if stage == importing.WRITING:
            raise Interrupted

    with pytest.raises(Interrupted):
        import_items(source=smile, dataset=NewDataset("smile", "SMILE"), by=None, on_progress=stop)
    assert (Dataset.objects.count(), Item.objects.count(), ImportRecord.objects.count()) == (0, 0, 0)


# --- Responses ------------------------------------------------------------------------------------------


@pytest.fixture
def soulchat(db) -> System:
    return register_preset(slug="soulchat", by=None)


@pytest.fixture
def items(lines, dataset) -> Dataset:
    import_items(source=lines(*(item(str(n), f"问 {n}") for n in range(3))), dataset=dataset, by=None)
    return dataset


def test_a_response_keeps_its_original_and_is_shown_like_all_others(lines, items, soulchat, admin):
    text = "  心理咨询师：我是灵心。\r\n\r\n\r\n好的<|im_end|> "
    rows = lines(answer("1", text, provenance={"seed": 3}), name="out.jsonl")
    result = import_responses(source=rows, dataset=items, by=admin)
    found = Response.objects.get()
    assert found.original == text
    assert found.text == "我是灵心。\n\n好的"
    assert [place["matched"] for place in found.disclosures] == ["我是灵心"]
    assert found.provenance["seed"] == 3
    assert (found.provenance["file"], found.provenance["line"]) == ("out.jsonl", 1)
    assert result.counts["n_with_disclosures"] == 1


def test_names_given_at_registration_are_found_in_responses(lines, items):
    register_system(slug="mine", name="小暖", aliases=["WarmBot"], by=None)
    import_responses(source=lines(answer("1", "我是小暖，叫我warmbot吧", "mine")), dataset=items, by=None)
    assert {place["matched"] for place in Response.objects.get().disclosures} >= {"warmbot"}


def test_the_same_responses_again_change_nothing(lines, items, soulchat):
    rows = lines(answer("1"), answer("2"))
    import_responses(source=rows, dataset=items, by=None)
    assert import_responses(source=rows, dataset=items, by=None).is_repeat
    more = import_responses(source=lines(answer("1"), answer("0")), dataset=items, by=None)
    assert (more.counts["n_new"], more.counts["n_unchanged"]) == (1, 1)
    assert Response.objects.count() == 3


def test_a_row_that_says_the_same_twice_is_counted(lines, items, soulchat):
    result = import_responses(source=lines(answer("1"), answer("1")), dataset=items, by=None)
    assert (result.counts["n_new"], result.counts["n_repeated_rows"]) == (1, 1)


def test_repeats_are_responses_of_their_own(lines, items, soulchat):
    import_responses(source=lines(answer("1", "a"), answer("1", "b", repeat=1)), dataset=items, by=None)
    assert set(Response.objects.values_list("repeat", "text")) == {(0, "a"), (1, "b")}


@pytest.mark.parametrize(
    ("rows", "code", "line"),
    [
        ([answer("1"), answer("9")], "unknown_item", 2),
        ([answer("1"), answer("2", system="SoulChat")], "unknown_system", 2),
        ([answer("1", "a"), answer("1", "b")], "duplicate_key", 2),
        ([answer("1"), answer("2", "<|im_end|> ")], "empty_response", 2),
        ([answer("1"), answer("2", "")], "empty_response", 2),
        ([answer("1"), answer("2", system="human-reference")], "reference_system", 2),
    ],
)
def test_a_bad_response_is_refused_with_its_line(lines, items, soulchat, rows, code, line):
    register_preset(slug="human-reference", by=None)
    (problem,) = refused(responses=lines(*rows), dataset=items)
    assert (problem.code, problem.place.number) == (code, line)


def test_another_text_for_the_same_item_is_refused(lines, items, soulchat):
    import_responses(source=lines(answer("1", "a")), dataset=items, by=None)
    (problem,) = refused(responses=lines(answer("2"), answer("1", "b")), dataset=items)
    assert problem.code == "conflicting_response"
    assert "soulchat" in sentence(problem) and "line 2" in sentence(problem)


def test_an_unknown_system_names_the_way_out_once(lines, items):
    (problem,) = refused(responses=lines(answer("1"), answer("2")), dataset=items)
    assert "soulchat" in sentence(problem) and "Register it first" in sentence(problem)


def test_systems_can_be_registered_with_the_file(lines, items):
    options = ResponseOptions(create_systems=True)
    result = import_responses(source=lines(answer("1", system="qwen-7b")), dataset=items, options=options, by=None)
    assert result.counts["n_new_systems"] == 1
    assert System.objects.get().name == "qwen-7b"


@pytest.mark.parametrize("slug", ["not a slug", "<b>", "x" * 61, "SoulChat"])
def test_a_slug_that_cannot_be_registered_is_refused(lines, items, soulchat, slug):
    options = ResponseOptions(create_systems=True)
    (problem,) = refused(responses=lines(answer("1", system=slug)), dataset=items, options=options)
    assert problem.code in {"bad_slug", "unknown_system"}


def test_hostile_responses_come_through_as_text(lines, items, soulchat):
    rows = [answer("1", text, repeat=n) for n, text in enumerate(HOSTILE)]
    import_responses(source=lines(*rows), dataset=items, by=None)
    assert list(Response.objects.order_by("repeat").values_list("original", flat=True)) == HOSTILE


def test_record_response_is_the_same_door_for_one(items, soulchat):
    one = Item.objects.first()
    first = record_response(item=one, system=soulchat, text=" 好的 ", provenance={"a": 1})
    assert record_response(item=one, system=soulchat, text=" 好的 ") == first
    assert (first.original, first.text) == (" 好的 ", "好的")
    with pytest.raises(ConflictingResponse):
        record_response(item=one, system=soulchat, text="另一句")
    with pytest.raises(EmptyResponse):
        record_response(item=one, system=soulchat, text="<think>x</think>", repeat=1)
    assert Response.objects.count() == 1


# --- Systems --------------------------------------------------------------------------------------------


def test_presets_are_registered_once(admin):
    for preset in PRESETS:
        assert register_preset(slug=preset.slug, by=admin) == register_preset(slug=preset.slug, by=admin)
    assert System.objects.count() == len(PRESETS)
    assert System.objects.get(kind="reference").name == "Human reference"


def test_a_second_reference_or_a_taken_name_is_refused(soulchat):
    register_preset(slug="human-reference", by=None)
    for fields in (
        {"slug": "other", "name": "Other", "kind": "reference"},
        {"slug": "other", "name": "SoulChat"},
        {"slug": "soulchat", "name": "Other"},
        {"slug": "no slug", "name": "Other"},
        {"slug": "other", "name": " "},
        {"slug": "other", "name": "Other", "aliases": ["x"] * 3 + [f"a{n}" for n in range(60)]},
        {"slug": "other", "name": "Other", "aliases": ["x" * 101]},
    ):
        with pytest.raises(SystemRefused):
            register_system(**fields, by=None)
    assert System.objects.count() == 2


def test_a_system_is_changed_with_a_trace(soulchat, admin):
    update_system(system=soulchat, name=" Soul\nChat 2 ", aliases=["a", " a ", "", "b"], by=admin)
    soulchat.refresh_from_db()
    assert (soulchat.name, soulchat.aliases, soulchat.slug) == ("Soul Chat 2", ["a", "b"], "soulchat")
    assert AuditEvent.objects.filter(action="system.changed", actor=admin).exists()


def test_the_counsellors_own_reply_becomes_a_response(lines, dataset):
    rows = lines(item("1", reference="心理咨询师：慢慢说。"), item("2"), item("3", reference="<|im_end|>"))
    import_items(source=rows, dataset=dataset, by=None)
    assert ensure_reference_responses(dataset) == 1
    assert ensure_reference_responses(list(Item.objects.all())) == 0
    found = Response.objects.get()
    assert (found.item.key, found.system.kind) == ("1", "reference")
    assert (found.original, found.text) == ("心理咨询师：慢慢说。", "慢慢说。")


# --- Small helpers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "slug"),
    [("家庭", "family"), ("FAMILY", "family"), ("social  events", "social-events"), ("", ""), ("x", "")],
)
def test_labels_of_topics(label, slug):
    assert slug_of(label) == slug


def test_english_risk_terms_are_whole_words():
    assert risks_of("the therapist") == []
    assert risks_of("I was Raped.") == ["abuse"]
    assert risks_of("没事", "她说想死") == ["self_harm"]


# --- Commands -------------------------------------------------------------------------------------------


def run(name: str, *arguments: str) -> str:
    out = io.StringIO()
    call_command(name, *arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_the_commands_take_files_in_and_say_what_came(smile, lines, soulchat):
    assert "n_new 30" in run("import_items", "smile", str(smile.path), "--name", "SMILE")
    assert run("import_items", "smile", str(smile.path)).startswith("Nothing changed")
    drawn = run(
        "import_items", "few", str(smile.path), "--name", "F", "--one-per-dialogue", "--sample", "5", "--seed", "2"
    )
    assert "n_new 5" in drawn
    rows = lines({"item": "3#4", "response": "好"})
    assert "n_new 1" in run("import_responses", "smile", str(rows.path), "--system", "soulchat")


def test_the_commands_list_every_problem_and_end_with_1(lines, dataset):
    rows = lines({"key": "1"}, {"turns": []}, {"key": "x\x1b[31m", "turns": "what"})
    with pytest.raises(CommandError) as caught:
        run("import_items", "pilot", str(rows.path))
    assert caught.value.returncode == 1
    told = str(caught.value)
    assert all(f"line {n}" in told for n in (1, 2, 3))
    assert "\x1b" not in told


@pytest.mark.parametrize(
    "arguments",
    [
        ("import_items", "nowhere", "/dev/null"),
        ("import_items", "pilot", "/no/such/file"),
        ("import_items", "pilot", "/dev/null", "--by", "nobody"),
        ("import_items", "pilot", "/dev/null", "--sample", "0"),
        ("import_items", "pilot", "/dev/null", "--stratify", "topic"),
        ("import_responses", "nowhere", "/dev/null"),
        ("import_responses", "pilot", "/dev/null", "--format", "smilechat"),
    ],
)
def test_the_commands_refuse_what_makes_no_sense(dataset, arguments):
    with pytest.raises(CommandError):
        run(*arguments)
