"""What goes to an endpoint and what comes back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

OWN_FIELDS = {"model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens"}


class Message(NamedTuple):
    """One turn of a dialogue as an endpoint reads it; role is "system", "user" or "assistant"."""

    role: str
    content: str


class Usage(NamedTuple):
    """Tokens as the endpoint counts them: what it charges for."""

    prompt_tokens: int
    completion_tokens: int


class RateHints(NamedTuple):
    """What is left of the endpoint's limits and in how many seconds they are full again; None = not said."""

    requests_left: int | None = None
    requests_reset_seconds: float | None = None
    tokens_left: int | None = None
    tokens_reset_seconds: float | None = None


@dataclass(frozen=True)
class Answer:
    """What an endpoint wrote for one item.

    finish_reason: "stop", "length" (cut at the limit of tokens), "content_filter" (the provider withheld it: a result,
        and `text` may be empty), "refusal" (the model declined in the field made for that), or the endpoint's own word;
        "" if it gave none.
    usage: None where the endpoint does not say. model, system_fingerprint: as reported back, "" where it does not say.
    seconds: from sending to the last byte.
    """

    text: str
    finish_reason: str
    usage: Usage | None
    model: str
    system_fingerprint: str
    request_id: str
    seconds: float
    rate: RateHints = field(default_factory=RateHints)

    @property
    def is_truncated(self) -> bool:
        """Whether the text ends where the limit of tokens was, not where the system wanted."""
        return self.finish_reason == "length"

    @property
    def is_withheld(self) -> bool:
        """Whether a filter of the provider, or the model itself, declined to answer."""
        return self.finish_reason in ("content_filter", "refusal")


@dataclass(frozen=True)
class Sampling:
    """How a model is asked to write; None is not sent, since some models refuse a parameter they do not have.

    max_new_tokens: sent as `limit_name`, which newer models call `max_completion_tokens`; a budget needs it.
    extra: further fields of the request body, for servers that know more (`top_k`, `chat_template_kwargs`).
    """

    temperature: float | None = None
    top_p: float | None = None
    max_new_tokens: int | None = None
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: tuple[str, ...] | None = None
    extra: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = (self.temperature, self.top_p, self.presence_penalty, self.frequency_penalty)
        if any(number is not None and not math.isfinite(number) for number in numbers):
            raise ValueError("A sampling parameter is a number, or left empty.")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"The limit of new tokens is 1 or more, or left empty: got {self.max_new_tokens}.")
        if taken := sorted(OWN_FIELDS & set(self.extra)):
            raise ValueError(f"These fields are set elsewhere and cannot be extra: {', '.join(taken)}.")

    def as_request(self) -> dict[str, object]:
        """The fields of the request body."""
        own = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            self.limit_name: self.max_new_tokens,
            "seed": self.seed,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "stop": None if self.stop is None else list(self.stop),
        }
        return {**self.extra, **{name: value for name, value in own.items() if value is not None}}


@dataclass(frozen=True)
class Endpoint:
    """A model behind an OpenAI-compatible server.

    timeout_seconds: for a whole answer, however slowly it drips. asks_usage: in a stream, ask for token counts; a few
    servers refuse the field.
    """

    base_url: str
    model: str
    sampling: Sampling = Sampling()
    timeout_seconds: float = 120.0
    connect_timeout_seconds: float = 10.0
    is_streaming: bool = False
    asks_usage: bool = True
