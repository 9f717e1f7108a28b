"""What can go wrong between us and an endpoint, and what follows: try again, give the item up, or stop the batch."""

from __future__ import annotations

from enum import StrEnum

from models_runtime.endpoints.values import Usage


class Kind(StrEnum):
    """The class of an error; it alone decides what happens next."""

    # wait, then the same item again
    RATE = "rate"  # 429: too many requests or tokens; everybody waits
    OVERLOADED = "overloaded"  # 5xx, 408, 409
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"  # no connection, or it was reset
    HALF = "half"  # the connection ended in the middle of an answer
    EMPTY = "empty"  # an answer without text
    MALFORMED = "malformed"  # an answer that is no chat completion
    # this item fails, the rest goes on
    CONTEXT_LENGTH = "context_length"
    BAD_REQUEST = "bad_request"
    BAD_ITEM = "bad_item"  # refused by us before anything was sent
    # the batch stops, since every further item would meet the same
    AUTH = "auth"  # 401, 403
    QUOTA = "quota"  # 402, or a 429 that means "no money left"
    NO_MODEL = "no_model"
    PARAMETER = "parameter"  # the model refuses a sampling parameter
    REDIRECT = "redirect"
    REFUSED_ADDRESS = "refused_address"  # not on the allow-list
    BUDGET = "budget"  # our own hard stop


class Action(StrEnum):
    """What an error means for the batch."""

    RETRY = "retry"
    FAIL_ITEM = "fail_item"
    STOP = "stop"


ACTIONS = {
    **dict.fromkeys(Kind, Action.STOP),
    **dict.fromkeys((Kind.RATE, Kind.OVERLOADED, Kind.TIMEOUT, Kind.UNREACHABLE, Kind.HALF), Action.RETRY),
    **dict.fromkeys((Kind.EMPTY, Kind.MALFORMED), Action.RETRY),
    **dict.fromkeys((Kind.CONTEXT_LENGTH, Kind.BAD_REQUEST, Kind.BAD_ITEM), Action.FAIL_ITEM),
}


class EndpointError(Exception):
    """A request that brought no answer.

    The message is for the page of the batch: it names the way out, and holds neither key nor body of the answer.
    action: by default what the kind says. retry_after_seconds: how long the endpoint asks to be left alone, if it does.
    may_be_billed: the endpoint may have worked for us, so its price counts as spent; usage: how much, where it said so.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        action: Action | None = None,
        status: int | None = None,
        retry_after_seconds: float | None = None,
        request_id: str = "",
        may_be_billed: bool = False,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.action = action or ACTIONS[kind]
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        self.request_id = request_id
        self.may_be_billed = may_be_billed
        self.usage = usage


class NotAllowed(ValueError):
    """A base URL or an entry of the allow-list that cannot be used; the message says why."""
