"""One request to one endpoint: what comes back, and what every kind of trouble becomes."""

from __future__ import annotations

import gzip
import json
import logging
import pickle
import threading

import pytest

from models_runtime.endpoints.allowed import AllowList
from models_runtime.endpoints.client import ChatClient
from models_runtime.endpoints.errors import Action, EndpointError, Kind
from models_runtime.endpoints.reading import duration, rate_hints, retry_after
from models_runtime.endpoints.secret import Secret
from models_runtime.endpoints.values import Endpoint, Message, RateHints, Sampling, Usage
from tests.models_runtime.stub_server import (
    Step,
    chunk,
    completion,
    cuts,
    cuts_unannounced,
    drips,
    fails,
    finishes,
    redirects,
    resets,
    says,
    sends,
    streams,
    stub,
    waits,
)

KEY = "sk-canary-7Qm2pXw9LzR4"
HELLO = [Message("system", "你在倾听。"), Message("user", "我睡不着。")]


def client_of(origin: str, **settings) -> ChatClient:
    endpoint = Endpoint(f"{origin}/v1", "toy", **{"timeout_seconds": 30, **settings})
    return ChatClient(endpoint, key=Secret(KEY), allowed=AllowList.parse([origin]))


def ask(step: Step, messages=HELLO, **settings):
    with stub(step) as server, client_of(server.origin, **settings) as client:
        return client.answer(messages)


def trouble(step: Step, **settings) -> EndpointError:
    with pytest.raises(EndpointError) as caught:
        ask(step, **settings)
    return caught.value


# --- answers


def test_an_answer_carries_all_that_the_endpoint_told():
    answer = ask(
        says("我在听。", headers={"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "6m0s"})
    )
    assert (answer.text, answer.finish_reason, answer.usage) == ("我在听。", "stop", Usage(11, 5))
    assert (answer.model, answer.system_fingerprint, answer.request_id) == ("toy-1", "fp_a", "req-1")
    assert answer.rate == RateHints(requests_left=0, requests_reset_seconds=360.0)
    assert answer.seconds > 0 and not answer.is_truncated and not answer.is_withheld


def test_the_request_holds_what_was_set_and_nothing_else(monkeypatch):
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/ambient")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Ambient: yes\nAuthorization: Bearer ambient")
    sampling = Sampling(temperature=0.95, max_new_tokens=512, limit_name="max_completion_tokens", extra={"top_k": 50})
    with stub(says()) as server, client_of(server.origin, sampling=sampling) as client:
        client.answer(HELLO)
    [request] = server.requests
    assert request["path"] == "/v1/chat/completions"
    assert request["body"] == {
        "model": "toy",
        "stream": False,
        "messages": [{"role": "system", "content": "你在倾听。"}, {"role": "user", "content": "我睡不着。"}],
        "temperature": 0.95,
        "max_completion_tokens": 512,
        "top_k": 50,
    }
    assert request["headers"]["Authorization"] == f"Bearer {KEY}"
    assert "ambient" not in json.dumps(request).lower()
    assert not [name for name in request["headers"] if name.lower().startswith(("x-stainless-os", "openai-"))]


def test_an_endpoint_without_a_key_gets_none():
    with stub(says()) as server:
        endpoint = Endpoint(f"{server.origin}/v1", "toy")
        with ChatClient(endpoint, key=None, allowed=AllowList.parse([server.origin])) as client:
            client.answer(HELLO)
    assert "Authorization" not in server.requests[0]["headers"]


def test_a_stream_is_put_together():
    steps = streams(
        chunk("我", system_fingerprint="fp_a"),
        chunk("在听。"),
        chunk(finish_reason="stop"),
        {**chunk(), "choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 3}},
        "[DONE]",
    )
    with stub(steps) as server, client_of(server.origin, is_streaming=True) as client:
        answer = client.answer(HELLO)
    assert (answer.text, answer.finish_reason, answer.usage) == ("我在听。", "stop", Usage(11, 3))
    assert (answer.model, answer.system_fingerprint, answer.request_id) == ("toy-1", "fp_a", "req-2")
    assert server.bodies[0]["stream_options"] == {"include_usage": True}


def test_a_stream_need_not_say_that_it_is_done():
    assert ask(streams(chunk("好。", "stop")), is_streaming=True).text == "好。"


def test_an_emoji_split_between_two_chunks_is_whole_again():
    halves = [json.dumps("🙂")[1:7], json.dumps("🙂")[7:13]]
    parts = [f'{{"choices": [{{"index": 0, "delta": {{"content": "{half}"}}}}]}}' for half in halves]
    assert ask(streams(*parts, chunk("", "stop")), is_streaming=True).text == "🙂"


def test_text_that_no_database_could_store_is_repaired():
    assert ask(says("好\ud83d的\x00")).text == "好\ufffd的\ufffd"


def test_a_text_cut_at_the_limit_is_flagged():
    answer = ask(finishes("length", "我觉得"))
    assert answer.is_truncated and answer.text == "我觉得"


@pytest.mark.parametrize(
    "step",
    [
        finishes("content_filter", None),
        finishes("content_filter", "我"),
        fails(400, code="content_filter"),
        fails(400, code="data_inspection_failed"),
        finishes("stop", None, refusal="我不能谈这个。"),
    ],
)
def test_what_a_filter_withheld_is_a_result(step):
    answer = ask(step)
    assert answer.is_withheld and answer.finish_reason in ("content_filter", "refusal")


def test_a_refusal_keeps_its_words():
    assert ask(finishes("stop", None, refusal="我不能谈这个。")).text == "我不能谈这个。"


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": "3"}, 7])
def test_token_counts_that_are_none_are_none(usage):
    assert ask(says(usage=usage)).usage is None


def test_many_threads_share_a_client():
    def echo(body):
        return says(body["messages"][-1]["content"])

    answers: dict[int, str] = {}
    with stub(decide=echo) as server, client_of(server.origin) as client:

        def work(number: int) -> None:
            for turn in range(number, 64, 16):
                answers[turn] = client.answer([Message("user", f"第{turn}句")]).text

        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {turn: f"第{turn}句" for turn in range(64)}


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": float("nan")}, {"max_new_tokens": 0}, {"extra": {"model": "other"}}, {"extra": {"messages": []}}],
)
def test_sampling_that_cannot_be_sent_is_refused_when_it_is_set(wrong):
    with pytest.raises(ValueError, match=r"number, or left empty|1 or more|set elsewhere"):
        Sampling(**wrong)


# --- trouble

TROUBLE = [
    (fails(401), Kind.AUTH, Action.STOP),
    (fails(403), Kind.AUTH, Action.STOP),
    (fails(402), Kind.QUOTA, Action.STOP),
    (fails(429, code="insufficient_quota"), Kind.QUOTA, Action.STOP),
    (fails(429, code="1113", message="您的账户已欠费"), Kind.QUOTA, Action.STOP),
    (fails(400, type="Arrearage"), Kind.QUOTA, Action.STOP),
    (fails(429, type="requests", code="rate_limit_exceeded"), Kind.RATE, Action.RETRY),
    # A rate limit of a provider whose wording is that of a used-up account.
    (fails(429, message="You exceeded your current quota, please check your plan"), Kind.RATE, Action.RETRY),
    (fails(404, code="model_not_found"), Kind.NO_MODEL, Action.STOP),
    (fails(400, message="The model `toy` does not exist"), Kind.NO_MODEL, Action.STOP),
    (sends(404, b"<html>not here</html>", "text/html"), Kind.NO_MODEL, Action.STOP),
    (fails(400, code="context_length_exceeded"), Kind.CONTEXT_LENGTH, Action.FAIL_ITEM),
    (fails(400, message="This model's maximum context length is 2048 tokens"), Kind.CONTEXT_LENGTH, Action.FAIL_ITEM),
    (fails(413), Kind.CONTEXT_LENGTH, Action.FAIL_ITEM),
    (fails(400), Kind.BAD_REQUEST, Action.FAIL_ITEM),
    (fails(500), Kind.OVERLOADED, Action.RETRY),
    (fails(503), Kind.OVERLOADED, Action.RETRY),
    (sends(502, b"<html>Bad Gateway</html>", "text/html"), Kind.OVERLOADED, Action.RETRY),
    (resets, Kind.UNREACHABLE, Action.RETRY),
    (cuts, Kind.HALF, Action.RETRY),
    (cuts_unannounced, Kind.MALFORMED, Action.RETRY),
    (sends(200, b"<html>Welcome</html>", "text/html"), Kind.MALFORMED, Action.RETRY),
    (sends(200, b"{"), Kind.MALFORMED, Action.RETRY),
    (sends(200, b"[" * 100_000), Kind.MALFORMED, Action.RETRY),
    (sends(200, b"\xff\xfe\xfd"), Kind.MALFORMED, Action.RETRY),
    (sends(200, b"null"), Kind.MALFORMED, Action.RETRY),
    (sends(200, b'{"choices": 7}'), Kind.MALFORMED, Action.RETRY),
    (
        sends(200, gzip.compress(json.dumps(completion()).encode()), Content_Encoding="gzip"),
        Kind.MALFORMED,
        Action.RETRY,
    ),
    (sends(200, b"0" * (17 * 2**20)), Kind.HALF, Action.RETRY),
    (says(choices=[]), Kind.MALFORMED, Action.RETRY),
    (says(None), Kind.EMPTY, Action.RETRY),
    (says(" \n"), Kind.EMPTY, Action.RETRY),
    (finishes("tool_calls", None, tool_calls=[]), Kind.EMPTY, Action.RETRY),
    (finishes("length", ""), Kind.EMPTY, Action.FAIL_ITEM),
]


@pytest.mark.parametrize(("step", "kind", "action"), TROUBLE)
def test_every_kind_of_trouble_has_its_class(step, kind, action):
    error = trouble(step)
    assert (error.kind, error.action) == (kind, action)


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (streams(chunk("我"), is_whole=False), Kind.HALF),
        (streams(chunk("我")), Kind.HALF),  # a clean end, but nobody said that the answer was over
        (streams(chunk("我"), '{"error": {"message": "worker died"}}'), Kind.OVERLOADED),
        (streams(chunk("我"), "{nonsense"), Kind.MALFORMED),
        (streams("3"), Kind.MALFORMED),
        (streams(chunk("", "stop")), Kind.EMPTY),
        (resets, Kind.UNREACHABLE),
        (fails(429), Kind.RATE),
    ],
)
def test_every_kind_of_trouble_in_a_stream_too(step, kind):
    assert trouble(step, is_streaming=True).kind is kind


@pytest.mark.parametrize("is_streaming", [False, True])
@pytest.mark.parametrize("step", [waits, drips])
def test_the_time_limit_is_for_the_whole_answer(step, is_streaming):
    error = trouble(step, timeout_seconds=0.3, is_streaming=is_streaming)
    assert error.kind is Kind.TIMEOUT and error.may_be_billed


def test_a_server_that_is_not_there():
    with stub(says()) as server:
        origin = server.origin
    with client_of(origin) as client, pytest.raises(EndpointError, match=r"cannot be reached.*refused") as caught:
        client.answer(HELLO)
    assert caught.value.kind is Kind.UNREACHABLE and not caught.value.may_be_billed


@pytest.mark.parametrize(
    ("error", "name"),
    [
        ({"code": "unsupported_parameter", "param": "temperature"}, "temperature"),
        ({"code": "unsupported_value", "param": "top_p"}, "top_p"),
        ({"message": "Unsupported parameter: 'max_tokens' is not supported with this model."}, "max_tokens"),
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_a_refused_parameter_is_named_and_stops_the_batch(error, name, status):
    sampling = Sampling(temperature=0.95, top_p=0.75, max_new_tokens=512)
    refused = trouble(fails(status, **error), sampling=sampling)
    assert (refused.kind, refused.action) == (Kind.PARAMETER, Action.STOP)
    assert f"Leave {name} empty" in str(refused)


def test_a_parameter_that_was_not_sent_is_not_blamed():
    assert trouble(fails(400, message="unsupported temperature")).kind is Kind.BAD_REQUEST


def test_a_refused_parameter_is_no_long_dialogue_whatever_else_the_message_talks_of():
    message = "'temperature' is not supported: this model has a fixed one, and a larger context window."
    refused = fails(400, code="unsupported_parameter", param="temperature", message=message)
    assert trouble(refused, sampling=Sampling(temperature=0.5)).kind is Kind.PARAMETER


def test_a_limit_too_large_for_this_dialogue_is_the_dialogues_fault():
    message = "'max_tokens' is too large: 512. This model's maximum context length is 2048 tokens, invalid request"
    error = trouble(fails(400, message=message, param="max_tokens"), sampling=Sampling(max_new_tokens=512))
    assert error.kind is Kind.CONTEXT_LENGTH


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([], "dialogue is empty"),
        ([Message("user", "我"), Message("assistant", " ")], "Turn 2 is empty"),
        ([Message("client", "我")], "Turn 1: the role 'client'"),
        ([Message("user", "半个\ud83d字")], "lone surrogate"),
    ],
)
def test_a_dialogue_that_cannot_be_sent_is_not_sent(messages, why):
    with stub(says()) as server, client_of(server.origin) as client:
        with pytest.raises(EndpointError, match=why) as caught:
            client.answer(messages)
        assert caught.value.kind is Kind.BAD_ITEM and not server.requests


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(status):
    with stub(says()) as elsewhere, stub(redirects(f"{elsewhere.origin}/v1/chat/completions", status)) as server:
        allowed = AllowList.parse([server.origin, elsewhere.origin])  # not even to a server that is on the list
        client = ChatClient(Endpoint(f"{server.origin}/v1", "toy"), key=Secret(KEY), allowed=allowed)
        with client, pytest.raises(EndpointError, match="redirect") as caught:
            client.answer(HELLO)
        assert caught.value.kind is Kind.REDIRECT
        assert len(server.requests) == 1 and not elsewhere.requests


# --- what the endpoint asks for


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Sat, 21 Nov 2026 13:00:30 GMT", "date": "Sat, 21 Nov 2026 13:00:00 GMT"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 12:59:00 GMT", "date": "Sat, 21 Nov 2026 13:00:00 GMT"}, 0.0),
        ({"retry-after": "Sat, 21 Nov 2026 13:00:30 GMT"}, None),  # whose clock?
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_understood_or_left_alone(headers, seconds):
    assert retry_after(headers) == seconds


def test_retry_after_of_a_real_answer():
    assert trouble(fails(429, headers={"Retry_After": "12"})).retry_after_seconds == 12.0
    assert trouble(fails(503, headers={"Retry_After": "3"})).retry_after_seconds == 3.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("7", 7),
        ("", None),
        ("soon", None),
        ("2026-11-21", None),
    ],
)
def test_durations_of_rate_limit_headers(text, seconds):
    assert duration(text) == seconds


def test_rate_hints_ignore_what_is_no_count():
    assert rate_hints({"x-ratelimit-remaining-tokens": "many"}) == RateHints()


# --- the key stays where it is


def test_a_key_does_not_show_itself():
    key = Secret(f" {KEY}\n")
    assert key.reveal() == KEY
    assert KEY not in f"{key} {key!r} {key:>40} {[key]}" + str(vars(Secret))
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(key)


@pytest.mark.parametrize("value", ["", "two words", "钥匙", "sk-\n1"])
def test_a_key_that_cannot_be_one_is_refused_without_repeating_it(value):
    with pytest.raises(ValueError, match="one word of printable ASCII") as caught:
        Secret(value)
    assert not value or value not in str(caught.value)


@pytest.mark.parametrize(
    "step",
    [
        fails(401, message=f"Incorrect API key provided: {KEY}. You can find yours …"),
        fails(401, message=f"Wrong key {KEY[:12]}****{KEY[-9:]}"),
        fails(500, message=KEY, type=KEY),
        sends(500, KEY.encode(), "text/plain"),
        sends(500, json.dumps({"error": KEY}).encode()),
        sends(200, KEY.encode(), "text/plain"),
        finishes(KEY, ""),
        streams(json.dumps({"error": {"message": f"no {KEY}"}})),
        resets,
        cuts,
    ],
)
@pytest.mark.parametrize("is_streaming", [False, True])
def test_no_message_log_or_traceback_holds_the_key(step, is_streaming, caplog):
    caplog.set_level(logging.DEBUG)
    with stub(step) as server, client_of(server.origin, is_streaming=is_streaming) as client:
        with pytest.raises(EndpointError) as caught:
            client.answer(HELLO)
        error = caught.value
        seen = f"{error} {error!r} {vars(error)} {client!r} {vars(client._sdk)}"
    assert server.requests[0]["headers"]["Authorization"].endswith(KEY)  # it did go out
    assert error.__context__ is None and error.__cause__ is None
    for part in (KEY, KEY[:12], KEY[-9:]):
        assert part not in seen
        assert part not in caplog.text


def test_what_an_answer_reports_holds_no_key():
    answer = ask(says(f"{KEY} is what I say", model=KEY, system_fingerprint=KEY))
    assert KEY not in answer.model + answer.system_fingerprint + answer.finish_reason
    assert KEY in answer.text  # what a system wrote is stored as it is


def test_a_body_that_is_not_openais_is_not_repeated():
    error = trouble(sends(500, b"root:x:0:0 internal page", "text/plain"))
    assert "internal" not in str(error)


def test_an_endpoints_words_come_short_and_on_one_line():
    error = trouble(fails(400, message="bad\n\u202enews " + "x" * 5000))
    assert "\n" not in str(error) and "\u202e" not in str(error) and len(str(error)) < 400
