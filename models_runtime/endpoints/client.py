"""One answer from one OpenAI-compatible endpoint: an Answer, or an EndpointError that says what to do about it.

The SDK builds and sends the request and reads the stream; its retries are off, since who waits for how long is decided
for the whole batch (`limiter`). The key is put on at the last moment, in the HTTP client, and is nowhere else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx2
import openai

from models_runtime.endpoints.allowed import AllowList, Deadline, GuardedTransport, Resolve, resolve
from models_runtime.endpoints.errors import Action, EndpointError, Kind
from models_runtime.endpoints.reading import check_messages, clean, error_of, quoted, rate_hints, usage_of
from models_runtime.endpoints.secret import Secret
from models_runtime.endpoints.values import Answer, Endpoint, Message, Usage

# What the SDK takes from the environment (organisation, custom headers) or tells about this machine stays here.
HEADERS = {
    *("host", "accept", "content-type", "content-length", "connection"),
    "x-stainless-raw-response",  # the SDK looks for it again in the request, when the response is in
}


class ChatClient:
    """Calls one endpoint. Threads may share it; close it at the end, or use it as a context manager."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        key: Secret | None,
        allowed: AllowList,
        n_connections: int = 64,
        clock: Callable[[], float] = time.monotonic,
        resolve: Resolve = resolve,
    ) -> None:
        """key: None for a server that asks for none. n_connections: as many as there are threads, or more.

        Raises NotAllowed if the base URL is not on the list.
        """
        base_url, origin = allowed.check(endpoint.base_url)
        self.endpoint = endpoint
        self._key = key
        self._clock = clock
        self._deadline = Deadline()
        self._http = httpx2.Client(
            transport=GuardedTransport(origin, self._deadline, n_connections=n_connections, resolve=resolve),
            timeout=httpx2.Timeout(endpoint.timeout_seconds, connect=endpoint.connect_timeout_seconds),
            follow_redirects=False,
            trust_env=False,
            event_hooks={"request": [self._sign], "response": [_refuse_compression]},
        )
        self._sdk = openai.OpenAI(base_url=base_url, api_key="kept elsewhere", max_retries=0, http_client=self._http)

    def _sign(self, request: httpx2.Request) -> None:
        for name in list(request.headers):
            if name.lower() not in HEADERS:
                del request.headers[name]
        request.headers.update({"User-Agent": "qingting", "Accept-Encoding": "identity"})
        if self._key is not None:
            request.headers["Authorization"] = f"Bearer {self._key.reveal()}"

    def answer(self, messages: Sequence[Message]) -> Answer:
        """What the endpoint writes for this dialogue. Raises EndpointError."""
        check_messages(messages)
        started = self._clock()
        self._deadline.start(self.endpoint.timeout_seconds)
        try:
            answer = self._ask(messages, started)
        except EndpointError as error:
            failure = error
        except openai.APIStatusError as error:
            told = error_of(
                error.status_code,
                error.body,
                error.response.headers,
                sent=self.endpoint.sampling.as_request().keys(),
                key=self._key,
            )
            if told is None:
                return self._withheld(error.response.headers, started)
            failure = told
        except openai.APIConnectionError as error:
            failure = self._broken(error)
        except openai.APIError as error:  # said in the middle of a stream
            said = error.body.get("message", "") if isinstance(error.body, Mapping) else error.body
            message = f"The endpoint broke off its answer: {quoted(str(said or ''), self._key)}"
            failure = EndpointError(Kind.OVERLOADED, message, may_be_billed=True)
        except (ValueError, RecursionError):  # JSON that is none; the request was checked before
            failure = _malformed("what it sent is not JSON")
        else:
            return answer
        raise failure  # outside of `except`: what the SDK raised holds request and body, and goes no further

    def _ask(self, messages: Sequence[Message], started: float) -> Answer:
        endpoint = self.endpoint
        body = endpoint.sampling.as_request()
        if endpoint.is_streaming and endpoint.asks_usage:
            body["stream_options"] = {"include_usage": True}
        raw: Any = self._sdk.chat.completions.with_raw_response.create(
            model=endpoint.model,
            messages=[{"role": m.role, "content": m.content} for m in messages],  # type: ignore[misc]
            stream=endpoint.is_streaming,
            extra_body=body,
        )
        told = _from_stream(raw.parse()) if endpoint.is_streaming else _from_body(raw.http_response.json())
        return _answer(told, raw.http_response.headers, self._clock() - started, self._key)

    def _withheld(self, headers: Mapping[str, str], started: float) -> Answer:
        seconds = self._clock() - started
        request_id = quoted(headers.get("x-request-id", ""), self._key)
        return Answer("", "content_filter", None, "", "", request_id, seconds, rate_hints(headers))

    def _broken(self, error: openai.APIConnectionError) -> EndpointError:
        cause = error.__cause__
        why = quoted(str(cause or ""), self._key) or type(cause).__name__
        if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
            return EndpointError(Kind.UNREACHABLE, f"The endpoint cannot be reached: {why}.")
        if isinstance(error, openai.APITimeoutError):
            message = f"No whole answer within {self.endpoint.timeout_seconds:g} s. It may have been charged for."
            return EndpointError(Kind.TIMEOUT, message, may_be_billed=True)
        kind = Kind.HALF if isinstance(cause, httpx2.RemoteProtocolError) else Kind.UNREACHABLE
        return EndpointError(kind, f"The connection ended before the answer did: {why}.", may_be_billed=True)

    def close(self) -> None:
        """End all connections."""
        self._sdk.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _refuse_compression(response: httpx2.Response) -> None:
    """Nobody asked for it, and a few bytes could unfold into gigabytes."""
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise _malformed("it is compressed, which was not asked for")


def _malformed(why: str) -> EndpointError:
    message = f"The endpoint's answer is no chat completion: {why}. Check that the base URL is that of an API (…/v1)."
    return EndpointError(Kind.MALFORMED, message, may_be_billed=True)


class _Told:
    """What was told so far: by one body, or chunk by chunk."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.refusal: list[str] = []
        self.finish_reason = ""
        self.usage: Usage | None = None
        self.model = ""
        self.system_fingerprint = ""

    def add(self, body: Mapping[str, object], part: str) -> bool:
        """Take in a body or a chunk; whether it held a choice. part: "message" or "delta"."""
        self.model = self.model or _text(body.get("model"))
        self.system_fingerprint = self.system_fingerprint or _text(body.get("system_fingerprint"))
        self.usage = usage_of(body.get("usage")) or self.usage
        choices = body.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, Mapping):
            return False
        self.finish_reason = _text(choice.get("finish_reason")) or self.finish_reason
        piece = choice.get(part)
        if isinstance(piece, Mapping):
            self.text.append(_text(piece.get("content")))
            self.refusal.append(_text(piece.get("refusal")))
        return True


def _from_body(body: object) -> _Told:
    told = _Told()
    if not isinstance(body, Mapping) or not told.add(body, "message"):
        raise _malformed("it has no choices")
    return told


def _from_stream(chunks: Any) -> _Told:
    """Raises EndpointError if the stream ends before the endpoint said why."""
    told = _Told()
    for chunk in chunks:
        if not isinstance(chunk, openai.BaseModel):
            raise _malformed("a part of the stream is no chunk")
        told.add(chunk.to_dict(warnings=False), "delta")
    if not told.finish_reason:
        raise EndpointError(Kind.HALF, "The stream ended in the middle of the answer.", may_be_billed=True)
    return told


def _answer(told: _Told, headers: Mapping[str, str], seconds: float, key: Secret | None) -> Answer:
    text, refusal = clean("".join(told.text)), clean("".join(told.refusal))
    finish_reason = quoted(told.finish_reason, key)
    if refusal and not text.strip():
        text, finish_reason = refusal, "refusal"
    if not text.strip() and finish_reason != "content_filter":
        raise _empty(finish_reason, told.usage)
    model, fingerprint = quoted(told.model, key), quoted(told.system_fingerprint, key)
    request_id = quoted(headers.get("x-request-id", ""), key)
    return Answer(text, finish_reason, told.usage, model, fingerprint, request_id, seconds, rate_hints(headers))


def _empty(finish_reason: str, usage: Usage | None) -> EndpointError:
    if finish_reason == "length":
        message = "All tokens went before any text was written (into reasoning, usually). Allow more new tokens."
        return EndpointError(Kind.EMPTY, message, action=Action.FAIL_ITEM, may_be_billed=True, usage=usage)
    message = f"The endpoint answered without text (finish reason: {finish_reason or 'none'})."
    return EndpointError(Kind.EMPTY, message, may_be_billed=True, usage=usage)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
