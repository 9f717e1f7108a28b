"""LocalSettings, EndpointSettings: how a system answers, as frozen values that are stored as JSON. Pure.

What fixes a response (weights, template, decoding; model, sampling) and what only says where and how fast (device,
queue, rates, price) stand in one value, since a person edits them together; a RuntimeVersion keeps the first part only.
A key is never in here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any, Self

from models_runtime.endpoints.budget import Price
from models_runtime.endpoints.limiter import Limits
from models_runtime.endpoints.values import Endpoint, Sampling
from models_runtime.engine.prompts import TEMPLATES, BadTemplate, Template
from models_runtime.engine.spec import PRESETS, BadSpec, DecodingConfig, DType, digest_of

LOCAL, ENDPOINT = "local", "endpoint"


class BadSettings(ValueError):
    """Settings that cannot be used; the message names the field."""


@dataclass(frozen=True)
class LocalSettings:
    """A model from a folder.

    weights, adapter: folders on the machine of the worker; no adapter: "".
    family: "chatglm", "chatglm2" or "causal", to refuse a model of another one; "" = whatever the files say.
    template: None = that of the family.
    device: "cpu" or "cuda".  queue: of the job; "" = `default` for a CPU, the GPU queue with the least to do for a GPU.
    batch_rows: dialogues answered at once; None lets the device decide.
    """

    weights: str
    family: str = ""
    adapter: str = ""
    template: Template | None = None
    decoding: DecodingConfig = PRESETS["soulchat-paper"].decoding
    dtype: DType = "float32"
    device: str = "cpu"
    queue: str = ""
    batch_rows: int | None = None

    @property
    def max_new_tokens(self) -> int | None:
        return self.decoding.max_new_tokens

    def to_json(self) -> dict[str, Any]:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        template = None if self.template is None else self.template.to_json()
        return values | {"template": template, "decoding": self.decoding.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises BadSettings."""
        try:
            template = None if data.get("template") is None else Template.from_json(data["template"])
            return cls(**{**data, "template": template, "decoding": DecodingConfig.from_json(data["decoding"])})
        except (TypeError, KeyError, BadSpec, BadTemplate) as error:
            raise BadSettings(str(error)) from error


@dataclass(frozen=True)
class EndpointSettings:
    """A model behind an OpenAI-compatible server. price: None = nobody entered one, and money is not counted."""

    base_url: str
    model: str
    template: Template = TEMPLATES["chat"]
    sampling: Sampling = field(default_factory=Sampling)
    timeout_seconds: float = 120.0
    is_streaming: bool = False
    limits: Limits = field(default_factory=Limits)
    price: Price | None = None

    def __post_init__(self) -> None:
        if self.template.layout != "chat":
            raise BadSettings("the template of an endpoint must have the layout chat: the server makes the prompt")
        if self.price is not None and self.sampling.max_new_tokens is None:
            raise BadSettings("a price needs a limit of new tokens: without one, nobody knows what a request can cost")

    @property
    def max_new_tokens(self) -> int | None:
        return self.sampling.max_new_tokens

    @property
    def spec(self) -> dict[str, Any]:
        """What is known to fix its responses, as far as an endpoint's are fixed at all."""
        return {
            "kind": ENDPOINT,
            "base_url": self.base_url,
            "model": self.model,
            "template_id": self.template.id,
            "template_version": self.template.version,
            "sampling": self.sampling.as_request(),
        }

    @property
    def digest(self) -> str:
        return digest_of({"endpoint": 1, **self.spec})

    def endpoint(self, *, repeat: int = 0) -> Endpoint:
        """What the client calls. A seed, where there is one, is another one for each repeat."""
        seed = self.sampling.seed
        sampling = self.sampling if seed is None else dataclasses.replace(self.sampling, seed=seed + repeat)
        return Endpoint(
            self.base_url,
            self.model,
            sampling,
            timeout_seconds=self.timeout_seconds,
            is_streaming=self.is_streaming,
        )

    def to_json(self) -> dict[str, Any]:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        sampling = dataclasses.asdict(self.sampling) | {"extra": dict(self.sampling.extra)}
        stop = None if self.sampling.stop is None else list(self.sampling.stop)
        price = None
        if self.price is not None:
            price = {
                "currency": self.price.currency,
                "input_per_million": str(self.price.input_per_million),
                "output_per_million": str(self.price.output_per_million),
                "since": self.price.since.isoformat(),
            }
        return values | {
            "template": self.template.to_json(),
            "sampling": sampling | {"stop": stop},
            "limits": dataclasses.asdict(self.limits),
            "price": price,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises BadSettings."""
        try:
            stop = data["sampling"].get("stop")
            sampling = Sampling(**{**data["sampling"], "stop": None if stop is None else tuple(stop)})
            price = data.get("price")
            return cls(
                **{
                    **data,
                    "template": Template.from_json(data["template"]),
                    "sampling": sampling,
                    "limits": Limits(**data["limits"]),
                    "price": None if price is None else _price(price),
                }
            )
        except (TypeError, KeyError, ValueError, InvalidOperation) as error:
            raise BadSettings(str(error)) from error


Settings = LocalSettings | EndpointSettings


def settings_from(kind: str, data: Mapping[str, Any]) -> Settings:
    """The settings that a row holds. Raises BadSettings."""
    return LocalSettings.from_json(data) if kind == LOCAL else EndpointSettings.from_json(data)


def _price(data: Mapping[str, str]) -> Price:
    return Price(
        data["currency"],
        Decimal(data["input_per_million"]),
        Decimal(data["output_per_million"]),
        date.fromisoformat(data["since"]),
    )
