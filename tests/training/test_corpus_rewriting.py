"""Rewriting: what is asked, what is accepted, and that a run goes on where it stopped."""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from datetime import date
from decimal import Decimal

import pytest

from annotation.formats.source import Source
from models_runtime.endpoints.batch import Stopped
from models_runtime.endpoints.budget import Budget, MemoryLedger, Price
from models_runtime.endpoints.errors import EndpointError, Kind
from models_runtime.endpoints.limiter import Limiter, Limits
from models_runtime.endpoints.values import Answer, Endpoint, Sampling, Usage
from tests.training.corpora import jsonl
from training.corpus.errors import CorpusError, FolderTaken, SourceRefused
from training.corpus.formats import Reading, read_dialogues
from training.corpus.rewriting import EMPATHY, PLAIN, STYLES, Checks, Question, Refused, Style, messages, read_dialogue
from training.corpus.rewriting_run import NoAnswer, open_attempts, read_questions, rewrite, rewrite_by_endpoint

CHECKS = Checks(least_rounds=2, most_rounds=4, most_characters=40)
QUESTIONS = [Question(f"q{n}", "情绪", f"第{n}个问题：睡不着怎么办？", "先别着急，慢慢来。") for n in range(4)]


def written(
    n_rounds: int, client: str = "用户", counsellor: str = "心理咨询师", turns: dict[int, str] | None = None
) -> str:
    """A text of so many rounds; `turns` replaces what is said, by number."""
    said = [(turns or {}).get(n, f"第{n}句话。") for n in range(2 * n_rounds)]
    return "\n".join(f"{(client, counsellor)[n % 2]}：{text}" for n, text in enumerate(said))


def reason(text: str, style: Style = EMPATHY, checks: Checks = CHECKS) -> str:
    with pytest.raises(Refused) as refused:
        read_dialogue(text, style, checks)
    return refused.value.reason


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_the_prompt_holds_what_was_asked_and_the_question_as_it_stands(style):
    question = Question("1", "", "我写过{most}和 {x}", "{answer} 是什么？")
    (message,) = messages(style, Checks(), question)
    assert message.role == "user"
    assert question.question in message.content and question.answer in message.content
    for part in (f"“{style.client}：”", f"“{style.counsellor}：”", "8到20轮"):
        assert part in message.content
    assert "{client}" not in message.content


def test_only_the_empathy_style_asks_for_empathy():
    words = ("倾听", "安慰", "理解", "信任", "真诚", "情感")
    assert all(word in EMPATHY.instruction for word in words)
    assert not any(word in PLAIN.instruction for word in words)


def test_it_reads_a_dialogue():
    turns = read_dialogue(written(2), EMPATHY, CHECKS)
    assert [tuple(turn) for turn in turns] == [
        ("client", "第0句话。"),
        ("counsellor", "第1句话。"),
        ("client", "第2句话。"),
        ("counsellor", "第3句话。"),
    ]


@pytest.mark.parametrize(
    "dress",
    [
        lambda text: "分析：用户需要安慰，回答里用了倾听。\n\n" + text,
        lambda text: "<think>\n用户：先想想\n</think>\n" + text,
        lambda text: "```\n" + text.replace("\n", "\n\n") + "\n```",
        lambda text: text.replace("用户：", "**用户：** ").replace("心理咨询师：", "**心理咨询师**: "),
        lambda text: text.replace("：", ":"),
        lambda text: "【对话开始】\n" + text + "\n（对话结束）",
        lambda text: "\n".join(f"{n}. {line}" for n, line in enumerate(text.split("\n"), 1)),
        lambda text: "### 改写结果\n" + text.replace("用户：第2", "---\n第2轮：\n用户：第2"),
        lambda text: text.replace("句话。", "句话。\r\n"),
    ],
)
def test_it_is_lenient_about_what_stands_around_a_dialogue(dress):
    assert read_dialogue(dress(written(2)), EMPATHY, CHECKS) == read_dialogue(written(2), EMPATHY, CHECKS)


def test_paragraphs_of_a_turn_stay_together():
    turns = read_dialogue(written(2, turns={1: "一段。\n\n二段。"}), EMPATHY, CHECKS)
    assert turns[1].text == "一段。\n二段。"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no_turns"),
        ("很抱歉，我无法完成这个请求。", "declined"),
        (written(2, client="来访者", counsellor="咨询师"), "no_turns"),
        ("心理咨询师：你好\n" + written(2), "starts_with_counsellor"),
        (written(2) + "\n用户：谢谢", "ends_with_client"),
        ("用户：在吗\n" + written(2), "does_not_alternate"),
        (written(2, turns={2: ""}), "empty_turn"),
        (written(1), "too_few_rounds"),
        (written(5), "too_many_rounds"),
        (written(2, turns={3: "长" * 41}), "turn_too_long"),
        (written(2, turns={3: "（此处省略）<psy_utt>"}), "placeholder"),
        (written(2, turns={3: "半个\ud83d"}), "broken_character"),
    ],
)
def test_it_is_strict_about_the_dialogue(text, expected):
    assert reason(text) == expected


def test_each_limit_can_be_met():
    for n in (2, 4):
        assert len(read_dialogue(written(n), EMPATHY, CHECKS)) == 2 * n
    assert read_dialogue(written(2, turns={3: "长" * 40}), EMPATHY, CHECKS)
    assert len(read_dialogue(written(8, "求助者", "支持者"), PLAIN, Checks())) == 16
    assert reason(written(7), checks=Checks()) == "too_few_rounds"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instruction": "改写 {question}"}, r"hold \{answer\} once"),
        ({"counsellor": "用户"}, "labels of their own"),
        ({"client": ""}, "all of them text"),
        ({"more": "x"}, "JSON object with"),
    ],
)
def test_a_bad_style_is_named(change, message):
    with pytest.raises(CorpusError, match=message):
        Style.from_json(EMPATHY.to_json() | change)
    assert Style.from_json(EMPATHY.to_json()) == EMPATHY


def test_checks_that_nothing_meets_are_refused():
    with pytest.raises(CorpusError, match="cannot be met"):
        Checks(5, 4)


# --- Questions --------------------------------------------------------------------------------------------


def test_it_reads_questions(tmp_path):
    rows = [{"key": q.key, "question": q.question, "answer": q.answer, "topic": q.topic_label} for q in QUESTIONS]
    path = jsonl(tmp_path / "questions.jsonl", rows)
    assert read_questions(Source(path, path.name)) == QUESTIONS


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"key": "q0", "question": "a", "answer": "b"}, "duplicate_key"),
        ({"key": "1", "question": " ", "answer": "b"}, "missing"),
        ({"key": "1", "question": "a"}, "missing"),
        ({"key": "1", "question": 3, "answer": "b"}, "not_text"),
    ],
)
def test_a_bad_question_names_its_line(tmp_path, row, code):
    path = jsonl(tmp_path / "questions.jsonl", [{"key": "q0", "question": "a", "answer": "b"}, row])
    with pytest.raises(SourceRefused, match="line 2") as refused:
        read_questions(Source(path, path.name))
    assert [problem.code for problem in refused.value.problems] == [code]


# --- A run ------------------------------------------------------------------------------------------------


def attempts(path, **options):
    return open_attempts(path, options.pop("questions", QUESTIONS), **{"style": EMPATHY, "checks": CHECKS, **options})


class Writer:
    """Writes a good dialogue about most questions; for some, first or always, something else."""

    def __init__(self, bad: dict[str, list[str]] | None = None) -> None:
        self.bad = {key: list(texts) for key, texts in (bad or {}).items()}
        self.asked: list[str] = []

    def __call__(self, messages) -> str:
        key = next(question.key for question in QUESTIONS if question.question in messages[0].content)
        self.asked.append(key)
        return self.bad[key].pop(0) if self.bad.get(key) else written(2, turns={0: key})


def test_a_refused_text_is_asked_for_again_and_counted(tmp_path):
    ask = Writer({"q1": ["不行", written(1)], "q2": ["不行"] * 9})
    with attempts(tmp_path / "a.jsonl") as run:
        seen = []
        rewrite(run, ask, on_progress=lambda done, total: seen.append((done, total)))
        assert run.counts == {"accepted": 3, "no_turns": 4, "too_few_rounds": 1}
        assert [d.key for d in run.dialogues()] == ["q0", "q1", "q3"]
        assert (run.n_done, run.n_accepted) == (4, 3)
    assert Counter(ask.asked) == {"q0": 1, "q1": 3, "q2": 3, "q3": 1}
    assert seen[-1] == (4, 4) and seen == sorted(seen)


def test_a_run_goes_on_where_it_stopped(tmp_path):
    ask = Writer({"q0": ["不行"]})
    with attempts(tmp_path / "a.jsonl") as run:
        rewrite(run, ask, should_stop=lambda: len(ask.asked) == 3)
    with attempts(tmp_path / "a.jsonl") as run:
        assert run.counts == {"accepted": 2, "no_turns": 1}
        rewrite(run, ask)
        assert [d.key for d in run.dialogues()] == ["q0", "q1", "q2", "q3"]
    assert ask.asked == ["q0", "q0", "q1", "q2", "q3"]


def test_an_error_ends_the_run_and_nothing_paid_for_is_lost(tmp_path):
    def broken(messages):
        if QUESTIONS[2].question in messages[0].content:
            raise ConnectionError
        return written(2)

    with attempts(tmp_path / "a.jsonl") as run, pytest.raises(ConnectionError):
        rewrite(run, broken)
    with attempts(tmp_path / "a.jsonl") as run:
        assert run.n_accepted == 2
        assert [item.key for item in run.pending()] == ["q2", "q3"]


def test_a_question_without_answer_does_not_hold_up_the_others(tmp_path):
    def ask(messages):
        if QUESTIONS[0].question in messages[0].content:
            raise NoAnswer("too_long")
        return written(2)

    with attempts(tmp_path / "a.jsonl", n_tries=2) as run:
        rewrite(run, ask)
        assert run.counts == {"too_long": 2, "accepted": 3}


def test_the_result_is_a_corpus_of_ours(tmp_path):
    with attempts(tmp_path / "a.jsonl") as run:
        rewrite(run, Writer())
        assert run.write_dialogues(tmp_path / "rows.jsonl") == 4
        expected = list(run.dialogues())
    reading = Reading()
    found = list(read_dialogues(Source(tmp_path / "rows.jsonl", "rows"), reading))
    assert [d[:5] for d in found] == [d[:5] for d in expected]
    assert found[0].topic_label == "情绪" and not reading.problems


def test_a_killed_run_loses_nothing_but_the_line_it_was_writing(tmp_path):
    """kill -9 after two texts; then half a line, as a power cut leaves it."""
    path, texts = tmp_path / "a.jsonl", []

    def ask(messages):
        if len(texts) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        texts.append(1)
        return written(2)

    child = os.fork()  # far quicker than a process that imports all this anew
    if not child:
        try:
            with attempts(path) as run:
                rewrite(run, ask)
        finally:
            os._exit(1)  # whatever happened, it is no second pytest
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    with path.open("a") as file:
        file.write('{"key": "q2", "text": "half')
    with attempts(path) as run:
        assert (run.n_accepted, [item.key for item in run.pending()]) == (2, ["q2", "q3"])
        rewrite(run, Writer())
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["q0", "q1", "q2", "q3"]


def test_two_runs_do_not_share_a_file(tmp_path):
    with (
        attempts(tmp_path / "a.jsonl"),
        pytest.raises(FolderTaken, match="Another run"),
        attempts(tmp_path / "a.jsonl"),
    ):
        pass


def test_attempts_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    with attempts(path) as run:
        rewrite(run, Writer())
    for options, message in (
        ({"style": PLAIN}, "line 1 was made with another style"),
        ({"checks": Checks(2, 5, 40)}, "line 1 was made with another style or other checks"),
        ({"questions": QUESTIONS[1:]}, "line 1 is about a question q0"),
        ({"questions": [QUESTIONS[0]._replace(answer="改过"), *QUESTIONS[1:]]}, "line 1 is about a question q0"),
    ):
        with pytest.raises(CorpusError, match=message), attempts(path, **options):
            pass
    path.write_text('{"key": "q0"}\n')
    with pytest.raises(CorpusError, match="line 1 is no attempt"), attempts(path):
        pass
    with pytest.raises(CorpusError, match="at least once"), attempts(path, n_tries=0):
        pass


# --- Through an endpoint ----------------------------------------------------------------------------------


class Client:
    """An endpoint that writes what `Writer` writes, at 100 tokens a text."""

    endpoint = Endpoint("https://example.test/v1", "m", sampling=Sampling(max_new_tokens=200))

    def __init__(self, writer: Writer, finish: dict[str, str] | None = None) -> None:
        self.writer, self.finish = writer, finish or {}

    def answer(self, messages) -> Answer:
        text = self.writer(messages)
        if text == "down":
            raise EndpointError(Kind.BAD_REQUEST, "no")
        reason = self.finish.get(self.writer.asked[-1], "stop")
        return Answer(text, reason, Usage(50, 100), "m", "", "", 0.1)


def one_at_a_time() -> Limiter:
    return Limiter(Limits(max_concurrency=1, start_concurrency=1), rng=random.Random(0))


def test_an_endpoint_is_asked_in_passes(tmp_path):
    client = Client(Writer({"q1": ["不行"], "q3": ["down"]}), finish={"q2": "length"})
    with attempts(tmp_path / "a.jsonl") as run:
        rewrite_by_endpoint(run, client, one_at_a_time)
        assert run.counts == {"accepted": 3, "no_turns": 1, "cut_at_limit": 3, "endpoint_bad_request": 1}
    assert client.writer.asked == ["q0", "q1", "q2", "q3", "q1", "q2", "q3", "q2"]
    row = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])
    assert row["provenance"] == {
        "model": "m",
        "fingerprint": "",
        "usage": {"prompt_tokens": 50, "completion_tokens": 100},
    }


def test_a_budget_stops_the_run_and_more_money_goes_on(tmp_path):
    price = Price("CNY", Decimal(0), Decimal(10_000), date(2026, 1, 1))  # 1 a text, and 2 at the worst
    writer = Writer()
    with attempts(tmp_path / "a.jsonl") as run:
        with pytest.raises(Stopped) as stopped:
            rewrite_by_endpoint(
                run, Client(writer), one_at_a_time, budget=Budget(price, limit=Decimal(3), ledger=MemoryLedger())
            )
        assert stopped.value.error.kind is Kind.BUDGET
        assert run.n_accepted == 2
        rewrite_by_endpoint(
            run, Client(writer), one_at_a_time, budget=Budget(price, limit=Decimal(9), ledger=MemoryLedger())
        )
        assert run.n_accepted == 4
    assert writer.asked == ["q0", "q1", "q2", "q3"]
