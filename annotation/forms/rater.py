"""What raters are asked beside ratings."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext_lazy as _


class ConsentForm(forms.Form):
    """Two separate ticks: taking part, and reading what may distress."""

    has_agreed = forms.BooleanField()
    is_ready_for_sensitive = forms.BooleanField()


class GuessForm(forms.Form):
    """Did blinding hold? Asked once everything is rated."""

    is_recognised = forms.ChoiceField(
        label=_("Did you at any time believe you knew which system or person had written a response?"),
        choices=[("no", _("No")), ("sometimes", _("Sometimes")), ("often", _("Often")), ("unsure", _("Don't know"))],
        widget=forms.RadioSelect,
    )
    words = forms.CharField(
        label=_("What gave it away?"),
        required=False,
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 4}),
    )


class WithdrawForm(forms.Form):
    is_sure = forms.BooleanField(label=_("Yes, I want to leave this study"))
