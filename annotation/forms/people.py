"""Questions to people about themselves and each other."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from allauth.account import forms as allauth_forms
from django import forms
from django.conf import settings
from django.contrib.auth.password_validation import password_validators_help_texts
from django.utils.translation import gettext_lazy as _

from annotation.models import Study, User


class AccountForm(forms.Form):
    name = forms.CharField(
        label=_("Your name"),
        max_length=150,
        required=False,
        help_text=_("How we address you. Exports never contain it."),
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )
    language = forms.ChoiceField(label=_("Language"), choices=settings.LANGUAGES)
    has_shortcuts = forms.BooleanField(
        label=_("Single-key shortcuts on the rating page"),
        required=False,
        help_text=_("Switch them off if you use speech input or if keys fire by accident."),
    )


class InviteStaffForm(forms.Form):
    role = forms.ChoiceField(label=_("Role"), choices=[("researcher", _("Researcher")), ("admin", _("Admin"))])
    study = forms.ModelChoiceField(
        label=_("Study"),
        queryset=Study.objects.none(),
        required=False,
        to_field_name="public_id",
        help_text=_("The study a researcher joins; an admin needs none."),
    )
    label = forms.CharField(
        label=_("For whom"), max_length=100, required=False, help_text=_("A note for yourself, shown in this list.")
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["study"].queryset = Study.objects.order_by("name")  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if data.get("role") == "researcher" and not data.get("study") and "study" not in self.errors:
            self.add_error("study", _("Choose the study that this researcher joins."))
        if data.get("role") == "admin":
            data["study"] = None
        return data


class SeatLinkForm(forms.Form):
    label = forms.CharField(label=_("For whom"), max_length=100, required=False)


class AddResearcherForm(forms.Form):
    username = forms.CharField(
        label=_("Username"),
        max_length=150,
        help_text=_("Of a researcher who already has an account."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )


class TokenForm(forms.Form):
    name = forms.CharField(label=_("Token name"), max_length=100, help_text=_("What the token is for."))
    days = forms.TypedChoiceField(
        label=_("Valid for"),
        coerce=int,
        choices=[(30, _("30 days")), (90, _("90 days")), (365, _("one year"))],
    )

    @property
    def lifetime(self) -> timedelta:
        return timedelta(days=self.cleaned_data["days"])


class _PlainPasswordHelp:
    """The rules as one sentence after another; allauth's list cannot stand inside a paragraph."""

    fields: dict[str, forms.Field]
    user: User

    def _explain(self) -> None:
        self.fields["password1"].help_text = " ".join(password_validators_help_texts())


class SetPasswordForm(_PlainPasswordHelp, allauth_forms.SetPasswordForm):  # type: ignore[misc]  # no types there
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._explain()


class ChangePasswordForm(_PlainPasswordHelp, allauth_forms.ChangePasswordForm):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._explain()
