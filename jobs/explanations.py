"""explain: why a job failed, as a sentence in the reader's language that names the way out.

A kind brings sentences for its own errors (@job(..., explanations=…)); here are those that any job may meet. What the
error itself said stands below the sentence on the page; it is English and names file or number.
"""

from __future__ import annotations

from collections.abc import Mapping

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

Explanations = Mapping[str, str | Promise]  # by error class, or by a stable word such as "quota"

_ANY_JOB: Explanations = {
    "OutOfMemory": gettext_lazy("The memory of the device or machine was not enough."),
    "MemoryError": gettext_lazy("The memory of the device or machine was not enough."),
    "DiskFull": gettext_lazy("The disk is full. Make room, then go on."),
    "Silent": gettext_lazy("The process gave no sign of life for too long and was ended."),
    "Killed": gettext_lazy("The process was killed from outside."),
    "Crashed": gettext_lazy("The process ended in the middle of its work. The newest lines of the log say more."),
    "BadOutput": gettext_lazy("The process wrote something that nobody understands. Its versions may not fit."),
    "CouldNotStart": gettext_lazy("The process could not be started: a program is missing, or may not be run."),
    "Unkillable": gettext_lazy("A process does not end even when killed. The machine may have to be restarted."),
    "WorkerLost": gettext_lazy("The worker stopped without a word. What it had stored is kept."),
    "OperationalError": gettext_lazy("The database did not answer. Try again later."),
    "InterfaceError": gettext_lazy("The database did not answer. Try again later."),
    "UnknownKind": gettext_lazy("This version of the program does not know such a job."),
    "JobRefused": gettext_lazy("It cannot be done as asked; trying again would change nothing."),
}


def explain(error_class: str, own: Explanations | None = None) -> str:
    """The sentence for an error; `own` ones come first, and a general one where none is known."""
    return str((own or {}).get(error_class) or _ANY_JOB.get(error_class) or _("It did not work."))
