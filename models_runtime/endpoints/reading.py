"""What an endpoint's words mean: headers, error bodies and answers of servers that agree with OpenAI only roughly.

Sources: OpenAI, "Error codes" and "Rate limits" of the API guide; RFC 9110 section 10.2.3 (Retry-After). Providers
that speak the same protocol have error codes of their own; the ones we know stand in the sets below.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from email.utils import parsedate_to_datetime

from models_runtime.endpoints.errors import EndpointError, Kind
from models_runtime.endpoints.secret import Secret
from models_runtime.endpoints.values import Message, RateHints, Usage

# The account has no money left: waiting does not help. OpenAI, Moonshot, DashScope, Zhipu.
QUOTA_CODES = {
    *("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance"),
    *("exceeded_current_quota_error", "arrearage", "1113"),
}
NO_MONEY = re.compile(r"insufficient[ _](quota|balance|credits?|funds)|欠费|余额不足", re.IGNORECASE)
# The provider's filter withheld the text. OpenAI and Azure, DashScope, Zhipu.
FILTER_CODES = {
    *("content_filter", "content_policy_violation", "responsibleaipolicyviolation"),
    *("data_inspection_failed", "datainspectionfailed", "1301"),
}
TOO_LONG = re.compile(
    r"context[ _](length|window)|prompt is too long|too many (input )?tokens|maximum (input|sequence) length"
    r"|range of input length",
    re.IGNORECASE,
)
NO_SUCH_MODEL = re.compile(r"model.{0,80}(not[ _](found|exist)|does not exist|no such)|pinned to", re.IGNORECASE)
REFUSES = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|not (permitted|allowed)|invalid", re.IGNORECASE
)
DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
MAX_QUOTED = 300
ROLES = frozenset(("system", "developer", "user", "assistant"))


def check_messages(messages: Sequence[Message]) -> None:
    """Raises EndpointError (BAD_ITEM) if there is nothing to answer, or something that cannot be sent."""
    if not messages:
        raise EndpointError(Kind.BAD_ITEM, "The dialogue is empty.")
    for number, message in enumerate(messages, 1):
        if message.role not in ROLES:
            raise EndpointError(Kind.BAD_ITEM, f"Turn {number}: the role {message.role!r} is none of {sorted(ROLES)}.")
        if not message.content.strip():
            raise EndpointError(Kind.BAD_ITEM, f"Turn {number} is empty.")
        if any("\ud800" <= character <= "\udfff" for character in message.content):
            raise EndpointError(Kind.BAD_ITEM, f"Turn {number} holds half of a character (a lone surrogate).")


def error_of(
    status: int, body: object, headers: Mapping[str, str], *, sent: Collection[str], key: Secret | None
) -> EndpointError | None:
    """The error that an HTTP status and the body of an error amount to; None where it is the content filter.

    body: what stood under "error", or the whole body. sent: names of the parameters in the request.
    """
    code, kind_of_error, param, said = (_field(body, name) for name in ("code", "type", "param", "message"))
    said = said or _field(body, "detail")
    if isinstance(body, str) and "json" in headers.get("content-type", ""):
        said = body  # {"error": "words"}; a page or a dump is not repeated
    said_shortly = quoted(said, key)
    codes = {code.lower(), kind_of_error.lower()}
    request_id = quoted(headers.get("x-request-id", ""), key)

    def made(kind: Kind, message: str) -> EndpointError:
        full = f"{message} (status {status}{': ' + said_shortly if said_shortly else ''})"
        wait = retry_after(headers) if kind in (Kind.RATE, Kind.OVERLOADED) else None
        return EndpointError(kind, full, status=status, retry_after_seconds=wait, request_id=request_id)

    if 300 <= status < 400:
        return made(Kind.REDIRECT, "The endpoint redirects, which is never followed. Enter the URL where it really is.")
    if codes & QUOTA_CODES or status == 402 or (status in (400, 403, 429) and NO_MONEY.search(said)):
        return made(Kind.QUOTA, "The provider's account is used up. Top it up, or raise its limit, then resume.")
    if status in (400, 403, 422) and codes & FILTER_CODES:
        return None
    if status in (401, 403):
        return made(Kind.AUTH, "The endpoint does not accept the key. Check the key and what it may use.")
    if status in (400, 404, 422) and ("model_not_found" in codes or NO_SUCH_MODEL.search(said)):
        return made(Kind.NO_MODEL, "The endpoint does not have this model. Check its name.")
    if status in (404, 405):
        return made(Kind.NO_MODEL, "The endpoint has no such model or address. Check model name and base URL.")
    if status in (400, 422):
        name = _parameter(param, said, sent)
        is_sure = bool(codes & {"unsupported_parameter", "unsupported_value", "unknown_parameter"})
        if "context_length_exceeded" in codes or (TOO_LONG.search(said) and not is_sure):
            return made(Kind.CONTEXT_LENGTH, "The dialogue is too long for this model.")
        if name:
            return made(Kind.PARAMETER, f"The model does not take this {name}. Leave {name} empty, or change it.")
    if status == 413:
        return made(Kind.CONTEXT_LENGTH, "The dialogue is too long for this endpoint.")
    if status == 429:
        return made(Kind.RATE, "The endpoint asks for fewer requests.")
    if status >= 500 or status in (408, 409, 425):
        return made(Kind.OVERLOADED, "The endpoint cannot answer at the moment.")
    return made(Kind.BAD_REQUEST, "The endpoint refuses this request.")


def _field(body: object, name: str) -> str:
    value = body.get(name) if isinstance(body, Mapping) else None
    return str(value) if isinstance(value, str | int) else ""


def _parameter(param: str, said: str, sent: Collection[str]) -> str:
    """The sampling parameter that is refused, "" if it is none of those sent."""
    if param in sent:
        return param
    if not REFUSES.search(said):
        return ""
    return next((name for name in sent if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", said)), "")


def quoted(text: str, key: Secret | None) -> str:
    """Words of an endpoint, fit for a message: one short line, without the key."""
    line = CONTROL.sub(" ", key.scrub(text) if key else text).strip()
    return line if len(line) <= MAX_QUOTED else f"{line[:MAX_QUOTED]}…"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait before the next request; None if not said or not understood.

    A date is read against the `Date` of the same answer, so a clock that is wrong on either side does no harm.
    """
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / divisor
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        until = parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, (until - parsedate_to_datetime(headers.get("date", ""))).total_seconds())
    except (ValueError, TypeError, IndexError):
        return None


def rate_hints(headers: Mapping[str, str]) -> RateHints:
    """What the x-ratelimit headers say."""
    return RateHints(
        requests_left=_count(headers.get("x-ratelimit-remaining-requests", "")),
        requests_reset_seconds=duration(headers.get("x-ratelimit-reset-requests", "")),
        tokens_left=_count(headers.get("x-ratelimit-remaining-tokens", "")),
        tokens_reset_seconds=duration(headers.get("x-ratelimit-reset-tokens", "")),
    )


def _count(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,15}", text) else None


def duration(text: str) -> float | None:
    """Seconds of "6m0s", "1.5s", "20ms" or "7"; None for anything else."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    found = DURATION.fullmatch(text)
    if not text or found is None:
        return None
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def usage_of(value: object) -> Usage | None:
    """Token counts, if both are there and make sense."""
    counts = [value.get(name) if isinstance(value, Mapping) else None for name in Usage._fields]
    if all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in counts):
        return Usage(*(int(str(n)) for n in counts))
    return None


def clean(text: str) -> str:
    """Text that any database can store: halves of a surrogate pair joined or replaced, NUL replaced."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.replace("\x00", "\ufffd")
