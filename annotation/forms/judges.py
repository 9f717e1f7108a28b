"""A judge's ratings, and what is known of the judge."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

MAX_MEGABYTES = 20  # 100,000 rows, the most a table may have, are a quarter of it


class JudgeForm(forms.Form):
    name = forms.CharField(label=_("Name of the judge"), max_length=60, help_text=_("Reports call it by this name."))
    model = forms.CharField(
        label=_("Model"), max_length=200, help_text=_("Exactly which model, with its version and settings.")
    )
    prompt = forms.CharField(
        label=_("Prompt"),
        required=False,
        max_length=20_000,
        widget=forms.Textarea(attrs={"rows": 6}),
        help_text=_("As it was sent, so that others can repeat it."),
    )
    file = forms.FileField(label=_("File"), allow_empty_file=True, help_text=_("CSV or JSONL."))

    def clean_file(self) -> Any:
        file = self.cleaned_data["file"]
        if file.size > MAX_MEGABYTES * 1024**2:
            raise forms.ValidationError(_("The file is larger than %(limit)s MB."), params={"limit": MAX_MEGABYTES})
        return file
