"""What raters are asked beside ratings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django import forms
from django.utils.translation import gettext_lazy as _

from annotation.models import Recognised


class ConsentForm(forms.Form):
    """Two separate ticks: taking part, and reading what may distress."""

    has_agreed = forms.BooleanField()
    is_ready_for_sensitive = forms.BooleanField()


class GuessForm(forms.Form):
    """Did blinding hold? Asked once everything is rated."""

    is_recognised = forms.ChoiceField(
        label=_("Did you at any time believe you knew which system or person had written a response?"),
        choices=Recognised.choices,
        widget=forms.RadioSelect,
    )
    words = forms.CharField(
        label=_("What gave it away?"),
        required=False,
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 4}),
    )


CANNOT_TELL = "none"


class AuthorsForm(forms.Form):
    """Who wrote this? One question for each response, under its random id."""

    def __init__(self, *args: Any, responses: Sequence[str], n_writers: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        writers = [(str(n), _("Writer %(n)s") % {"n": n}) for n in range(1, n_writers + 1)]
        for number, public_id in enumerate(responses, start=1):
            self.fields[public_id] = forms.ChoiceField(
                label=_("Who wrote response %(n)s?") % {"n": number},
                choices=[*writers, (CANNOT_TELL, _("I cannot tell"))],
                widget=forms.RadioSelect,
                error_messages={
                    "required": _("Choose a writer, or “I cannot tell”."),
                    "invalid_choice": _("Choose a writer, or “I cannot tell”."),
                },
            )

    def guesses(self) -> dict[UUID, int | None]:
        """Response ► number of the writer, None = cannot tell. Call it on a valid form."""
        return {
            UUID(public_id): None if answer == CANNOT_TELL else int(answer)
            for public_id, answer in self.cleaned_data.items()
        }


class WithdrawForm(forms.Form):
    is_sure = forms.BooleanField(label=_("Yes, I want to leave this study"))
