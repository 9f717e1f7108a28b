"""One form for each question to a researcher."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.models import Dataset, Study, System
from annotation.services.studies import MAX_RATERS, plan_text

LARGEST_SEED = 2**53 - 1
MAX_ITEMS_AT_ONCE = 100_000


class StudyForm(forms.Form):
    name = forms.CharField(
        label=gettext_lazy("Name of the study"),
        help_text=gettext_lazy("Raters see it, so it must not name a system."),
        max_length=120,
    )


class _DatasetChoice(forms.ModelChoiceField):  # type: ignore[type-arg]  # no generic at run time
    def label_from_instance(self, dataset: Any) -> str:
        return _("%(name)s (%(n)s items)") % {"name": dataset.name, "n": dataset.n_items}


class DrawForm(forms.Form):
    dataset = _DatasetChoice(
        Dataset.objects.order_by("name"), label=gettext_lazy("Dataset"), empty_label=gettext_lazy("Choose …")
    )
    n = forms.IntegerField(label=gettext_lazy("Number of items"), min_value=1, max_value=MAX_ITEMS_AT_ONCE, initial=100)
    seed = forms.IntegerField(
        label=gettext_lazy("Seed"),
        help_text=gettext_lazy("The same seed draws the same items. Empty: the seed of the study."),
        min_value=0,
        max_value=LARGEST_SEED,
        required=False,
    )
    stratify_by_topic = forms.BooleanField(label=gettext_lazy("Keep the shares of the topics"), required=False)
    one_per_dialogue = forms.BooleanField(
        label=gettext_lazy("At most one item per dialogue"), required=False, initial=True
    )
    only_answered = forms.BooleanField(
        label=gettext_lazy("Only items that every chosen system has answered"), required=False, initial=True
    )


class SystemsForm(forms.Form):
    systems = forms.ModelMultipleChoiceField(
        System.objects.exclude(kind=System.Kind.REFERENCE).order_by("name"),
        label=gettext_lazy("Systems"),
        widget=forms.CheckboxSelectMultiple,
        required=False,
    )
    with_reference = forms.BooleanField(
        label=gettext_lazy("Add the counsellor's own reply as one more blinded arm"), required=False
    )


class RatersForm(forms.ModelForm):  # type: ignore[type-arg]  # no generic at run time
    n_raters = forms.IntegerField(label=gettext_lazy("Number of raters"), min_value=1, max_value=MAX_RATERS)

    class Meta:
        model = Study
        fields = ("raters_per_item", "pay_currency", "pay_per_response", "expected_seconds", "pay_floor_per_hour")
        labels = {
            "raters_per_item": gettext_lazy("Raters per item"),
            "pay_currency": gettext_lazy("Currency"),
            "pay_per_response": gettext_lazy("Pay per response"),
            "expected_seconds": gettext_lazy("Expected seconds per response"),
            "pay_floor_per_hour": gettext_lazy("Lowest hourly pay"),
        }
        help_texts = {
            "raters_per_item": gettext_lazy("As many as there are raters: everybody rates everything."),
            "pay_currency": gettext_lazy("Three letters, such as CNY or USD."),
            "pay_floor_per_hour": gettext_lazy("Below this, preview and progress warn you."),
        }

    field_order = (
        "n_raters",
        "raters_per_item",
        "pay_currency",
        "pay_per_response",
        "expected_seconds",
        "pay_floor_per_hour",
    )

    def clean_pay_currency(self) -> str:
        currency = str(self.cleaned_data["pay_currency"]).strip().upper()
        if not (len(currency) == 3 and currency.isascii() and currency.isalpha()):
            raise forms.ValidationError(_("A currency has three letters, such as CNY or USD."))
        return currency

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        n_raters, per_item = cleaned.get("n_raters"), cleaned.get("raters_per_item")
        if n_raters and per_item and per_item > n_raters:
            self.add_error("raters_per_item", _("There cannot be more raters per item than raters."))
        return cleaned


class OptionsForm(forms.ModelForm):  # type: ignore[type-arg]  # no generic at run time
    class Meta:
        model = Study
        fields = ("presentation", "min_gap", "repeat_percent", "disclosure_policy", "needs_practice")
        labels = {
            "presentation": gettext_lazy("Presentation"),
            "min_gap": gettext_lazy("Smallest gap"),
            "repeat_percent": gettext_lazy("Hidden repeats, %"),
            "disclosure_policy": gettext_lazy("When a response names its author"),
            "needs_practice": gettext_lazy("Raters practise before they rate"),
        }
        help_texts = {
            "min_gap": gettext_lazy("Interleaved only: responses between two of one dialogue."),
            "repeat_percent": gettext_lazy(
                "Items shown to the same rater a second time, unannounced and paid: 0 to 20."
            ),
        }
        widgets = {"presentation": forms.RadioSelect, "disclosure_policy": forms.RadioSelect}


class ConsentForm(forms.Form):
    """The consent text, part by part, in both languages; paragraphs are set apart by an empty line."""

    contact = forms.CharField(
        label=gettext_lazy("Study contact"),
        help_text=gettext_lazy("Stands for {contact} in the text, and on the help page."),
        max_length=200,
        required=False,
    )
    retention = forms.CharField(
        label=gettext_lazy("Data kept until"),
        help_text=gettext_lazy("Stands for {retention} in the text."),
        max_length=200,
        required=False,
    )
    title_zh = forms.CharField(label=gettext_lazy("Title, Chinese"), max_length=200)
    title_en = forms.CharField(label=gettext_lazy("Title, English"), max_length=200)
    body_zh = forms.CharField(
        label=gettext_lazy("Text, Chinese"), widget=forms.Textarea(attrs={"rows": 14}), max_length=20_000
    )
    body_en = forms.CharField(
        label=gettext_lazy("Text, English"), widget=forms.Textarea(attrs={"rows": 14}), max_length=20_000
    )
    sensitive_tick_zh = forms.CharField(
        label=gettext_lazy("Tick for sensitive content, Chinese"),
        widget=forms.Textarea(attrs={"rows": 3}),
        max_length=1000,
    )
    sensitive_tick_en = forms.CharField(
        label=gettext_lazy("Tick for sensitive content, English"),
        widget=forms.Textarea(attrs={"rows": 3}),
        max_length=1000,
    )
    agree_tick_zh = forms.CharField(
        label=gettext_lazy("Tick to agree, Chinese"),
        widget=forms.Textarea(attrs={"rows": 3}),
        max_length=1000,
    )
    agree_tick_en = forms.CharField(
        label=gettext_lazy("Tick to agree, English"),
        widget=forms.Textarea(attrs={"rows": 3}),
        max_length=1000,
    )

    @staticmethod
    def initial_of(study: Study) -> dict[str, str]:
        """The study's text, taken apart for the form."""
        initial = {"contact": study.contact, "retention": study.retention}
        for part, texts in study.consent.items():
            for language in ("zh", "en"):
                text = texts[language]
                initial[f"{part}_{language}"] = "\n\n".join(text) if isinstance(text, list) else text
        return initial

    def changes(self) -> dict[str, Any]:
        """The settings this form fills."""
        cleaned = self.cleaned_data
        consent: dict[str, dict[str, Any]] = {
            part: {language: cleaned[f"{part}_{language}"].strip() for language in ("zh", "en")}
            for part in ("title", "sensitive_tick", "agree_tick")
        }
        consent["body"] = {language: _paragraphs(cleaned[f"body_{language}"]) for language in ("zh", "en")}
        return {"consent": consent, "contact": cleaned["contact"], "retention": cleaned["retention"]}

    # The language of each field goes to the browser, which picks glyphs and voice by it.
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, field in self.fields.items():
            if name.endswith(("_zh", "_en")):
                field.widget.attrs["lang"] = "zh-Hans" if name.endswith("_zh") else "en"


def _paragraphs(text: str) -> list[str]:
    blocks = plan_text(text).split("\n\n")
    return [block.strip() for block in blocks if block.strip()]


class PlanForm(forms.Form):
    plan = forms.CharField(
        label=gettext_lazy("Analysis plan"),
        help_text=gettext_lazy(
            "Which comparisons, on which dimensions, with which test; which responses are left out and why."
        ),
        widget=forms.Textarea(attrs={"rows": 16}),
        max_length=100_000,
    )


class UnblindForm(forms.Form):
    name = forms.CharField(label=gettext_lazy("Name of the study"), max_length=120)

    def __init__(self, *args: Any, study: Study, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.study = study
        self.fields["name"].widget.attrs["autocomplete"] = "off"

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"]).strip()
        if name != self.study.name.strip():
            raise forms.ValidationError(_("This is not the name of the study."))
        return name
