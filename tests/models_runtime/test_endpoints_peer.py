"""Against a server that others wrote: `transformers serve` with a tiny random model, made here."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from models_runtime.endpoints.allowed import AllowList
from models_runtime.endpoints.batch import Answered, WorkItem, generate_many
from models_runtime.endpoints.budget import most_prompt_tokens
from models_runtime.endpoints.client import ChatClient
from models_runtime.endpoints.errors import EndpointError, Kind
from models_runtime.endpoints.limiter import Limiter, Limits
from models_runtime.endpoints.values import Endpoint, Message, Sampling
from tests.models_runtime.tiny import causal

# Starting the server imports torch and transformers anew: some 20 s, once for all tests here.
pytestmark = [pytest.mark.services, pytest.mark.slow]

HELLO = [Message("system", "你在倾听。"), Message("user", "我睡不着。")]
START_SECONDS = 120


@pytest.fixture(scope="session")
def peer(tmp_path_factory):
    """(origin, model name) of the running server."""
    folder = tmp_path_factory.mktemp("peer")
    causal(folder / "toy")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    command = [program, "serve", folder / "toy", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environ = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "home")}
    log = folder / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(command, env=environ, stdout=out, stderr=out, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _is_up(f"http://127.0.0.1:{port}/health"):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", str(folder / "toy")
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


def client_of(peer, **settings) -> ChatClient:
    origin, model = peer
    options = {"sampling": Sampling(max_new_tokens=16, temperature=0.0), "timeout_seconds": 60, **settings}
    return ChatClient(
        Endpoint(f"{origin}/v1", **{"model": model, **options}), key=None, allowed=AllowList.parse([origin])
    )


def prompt_tokens(peer, messages) -> int:
    """Tokens of the prompt by the model's own tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(peer[1])
    turns = [message._asdict() for message in messages]
    return len(tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"])


@pytest.mark.parametrize("is_streaming", [False, True])
def test_it_answers(peer, is_streaming):
    with client_of(peer, is_streaming=is_streaming) as client:
        answer = client.answer(HELLO)
    assert answer.text.strip()
    assert answer.is_truncated and answer.usage == (prompt_tokens(peer, HELLO), 16)
    assert answer.model.startswith(peer[1]) and answer.request_id


def test_a_stream_says_the_same_as_a_body(peer):
    with client_of(peer) as whole, client_of(peer, is_streaming=True) as stream:
        # The server's streamer leaves out the bytes of a character that the limit cut in two.
        assert whole.answer(HELLO).text.rstrip("\ufffd") == stream.answer(HELLO).text.rstrip("\ufffd") != ""


def test_many_items_are_answered_each_with_its_own_prompt(peer):
    items = [WorkItem(str(n), [Message("user", "夜" * n)]) for n in range(1, 9)]
    limiter = Limiter(Limits(max_concurrency=4), rng=random.Random(1))
    with client_of(peer) as client:
        outcomes = {o.key: o for o in generate_many(items, client, limiter)}
    assert len(outcomes) == 8
    for item in items:
        outcome = outcomes[item.key]
        assert isinstance(outcome, Answered)
        assert outcome.answer.usage.prompt_tokens == prompt_tokens(peer, item.messages)
        assert outcome.answer.usage.prompt_tokens <= most_prompt_tokens(item.messages)  # what a budget relies on


def test_another_model_than_the_one_it_has(peer):
    with client_of(peer, model="gpt-3.5-turbo") as client, pytest.raises(EndpointError) as caught:
        client.answer(HELLO)
    assert caught.value.kind is Kind.NO_MODEL and caught.value.status == 400


def test_a_parameter_it_does_not_know_is_named(peer):
    unknown = Sampling(max_new_tokens=4, extra={"top_k": 5})
    with client_of(peer, sampling=unknown) as client, pytest.raises(EndpointError, match="Leave top_k empty") as caught:
        client.answer(HELLO)
    assert caught.value.kind is Kind.PARAMETER and caught.value.status == 422


def test_a_wrong_base_url(peer):
    origin, model = peer
    endpoint = Endpoint(f"{origin}/api", model)
    client = ChatClient(endpoint, key=None, allowed=AllowList.parse([origin]))
    with client, pytest.raises(EndpointError, match="Check model name and base URL") as caught:
        client.answer(HELLO)
    assert caught.value.status == 404


@pytest.mark.parametrize("is_streaming", [False, True])
def test_it_breaks_down_inside(peer, is_streaming):
    """A generation config that it cannot read: a 500 in plain text, before any stream begins."""
    broken = Sampling(max_new_tokens=4, extra={"generation_config": "no JSON"})
    client = client_of(peer, sampling=broken, is_streaming=is_streaming)
    with client, pytest.raises(EndpointError) as caught:
        client.answer(HELLO)
    assert caught.value.kind is Kind.OVERLOADED and caught.value.status == 500
