"""What can go wrong in the domain, by name. `DomainErrorMiddleware` and the API's handler turn these into answers."""

from __future__ import annotations

from typing import Any


class DomainError(Exception):
    """A rule of the domain said no. `message` names the place and the way out, in the reader's language."""

    status = 422
    code = "refused"

    def __init__(self, message: str = "", **detail: Any) -> None:
        super().__init__(message)
        self.message = str(message)
        self.detail = detail


class NotFound(DomainError):
    """It does not exist, or it is not yours: the answer is the same."""

    status = 404
    code = "not_found"


class StudyClosed(DomainError):
    """The study is paused or closed; nothing can be rated in it now."""

    status = 423
    code = "study_closed"


class StaleRevision(DomainError):
    """Somebody (another tab) saved since this page was loaded. `detail` carries the current state."""

    status = 409
    code = "stale_revision"


class OffScale(DomainError):
    """A score that is no point of its dimension's scale."""

    code = "off_scale"


class Incomplete(DomainError):
    """Submitted as final with a dimension missing. `detail["missing"]` lists the keys."""

    code = "incomplete"


class StudyFrozen(DomainError):
    """The study has been opened; what raters see can no longer change."""

    status = 409
    code = "study_frozen"


class NotReady(DomainError):
    """A step that must come first has not been taken."""

    status = 409
    code = "not_ready"


class ImportRefused(DomainError):
    """A file was not taken in. `detail["problems"]` lists places: file, row, field, what is wrong."""

    code = "import_refused"


class InvitationUnusable(DomainError):
    """The link was used, has expired, was revoked or never existed."""

    status = 410
    code = "invitation_unusable"


class RoleConflict(DomainError):
    """A person has one role for life, and one seat in a study."""

    status = 409
    code = "role_conflict"
