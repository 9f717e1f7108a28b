"""Questions to an admin about datasets, files and systems."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.utils.translation import gettext_lazy as _

from annotation.formats.source import ITEM_FORMATS, RESPONSE_FORMATS
from annotation.models import Dataset, System
from annotation.services.importing import ItemOptions, NewDataset, ResponseOptions

FORMAT_NAMES = {
    "smilechat": _("SMILECHAT release (.zip or .tar.xz of JSON files)"),
    "soulchat": _("SoulChatCorpus release (one JSON list)"),
    "jsonl": "JSONL",
    "csv": "CSV",
    "xlsx": "XLSX",
}


def _format_field(formats: tuple[str, ...]) -> forms.ChoiceField:
    found_out = ("", _("Find out from the file"))
    return forms.ChoiceField(
        label=_("Format"), required=False, choices=[found_out, *((name, FORMAT_NAMES[name]) for name in formats)]
    )


class _FileForm(forms.Form):
    file = forms.FileField(label=_("File"), allow_empty_file=True, max_length=None)

    def clean_file(self) -> Any:
        file = self.cleaned_data["file"]
        if file.size > settings.UPLOAD_MAX_BYTES:
            limit = settings.UPLOAD_MAX_BYTES // 1024**2
            raise forms.ValidationError(_("The file is larger than %(limit)s MB."), params={"limit": limit})
        return file


class ImportItemsForm(_FileForm):
    dataset = forms.ModelChoiceField(
        label=_("Into the dataset"),
        queryset=Dataset.objects.all(),
        required=False,
        to_field_name="public_id",
        empty_label=_("A new dataset, named below"),
    )
    name = forms.CharField(label=_("Name of the new dataset"), max_length=200, required=False)
    slug = forms.SlugField(
        label=_("Its short name"),
        max_length=60,
        required=False,
        help_text=_("Letters, digits and hyphens; commands and exports use it."),
    )
    source = forms.CharField(
        label=_("Where the data come from"), max_length=500, required=False, help_text=_("In your own words.")
    )
    licence = forms.CharField(label=_("Licence"), max_length=200, required=False)
    format = _format_field(ITEM_FORMATS)
    one_per_dialogue = forms.BooleanField(
        label=_("One item of each dialogue, drawn by seed"),
        required=False,
        help_text=_("Otherwise every counsellor turn that answers the client makes an item."),
    )
    sample = forms.IntegerField(
        label=_("Draw so many dialogues"),
        required=False,
        min_value=1,
        help_text=_("Empty: all. All items of a dialogue come in together."),
    )
    seed = forms.IntegerField(
        label=_("Seed"),
        initial=1,
        validators=[MinValueValidator(0), MaxValueValidator(2**53 - 1)],
        help_text=_("The same seed and the same file give the same draw."),
    )
    stratify = forms.BooleanField(label=_("Share the draw out over the topics in proportion"), required=False)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if data.get("dataset"):
            return data
        if not data.get("name"):
            self.add_error("name", _("Choose a dataset, or name a new one."))
        if not data.get("slug") and "slug" not in self.errors:
            self.add_error("slug", _("A new dataset needs a short name."))
        elif Dataset.objects.filter(slug=data.get("slug", "")).exists():
            self.add_error("slug", _("There is a dataset of this short name. Choose it above."))
        return data

    def params(self) -> dict[str, Any]:
        """What the job needs to know, beside the file. Call it on a valid form."""
        data = self.cleaned_data
        options = ItemOptions(
            format=data["format"] or None,
            one_per_dialogue=data["one_per_dialogue"],
            sample=data["sample"],
            seed=data["seed"],
            is_stratified=data["stratify"],
        )
        if data["dataset"]:
            return {"options": vars(options), "dataset_id": data["dataset"].pk}
        new = NewDataset(data["slug"], data["name"], data["source"], data["licence"])
        return {"options": vars(options), "new_dataset": vars(new)}


class ImportResponsesForm(_FileForm):
    dataset = forms.ModelChoiceField(
        label=_("To the items of"), queryset=Dataset.objects.all(), to_field_name="public_id"
    )
    format = _format_field(RESPONSE_FORMATS)
    system = forms.ModelChoiceField(
        label=_("System of rows that name none"),
        queryset=System.objects.none(),
        required=False,
        to_field_name="slug",
        empty_label=_("Every row names its system"),
    )
    create_systems = forms.BooleanField(label=_("Register systems that are not known yet"), required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        answering = System.objects.exclude(kind=System.Kind.REFERENCE)
        self.fields["system"].queryset = answering  # type: ignore[attr-defined]

    def params(self) -> dict[str, Any]:
        """What the job needs to know, beside the file. Call it on a valid form."""
        data = self.cleaned_data
        options = ResponseOptions(
            format=data["format"] or None,
            system=data["system"].slug if data["system"] else "",
            create_systems=data["create_systems"],
        )
        return {"options": vars(options), "dataset_id": data["dataset"].pk}


class SystemForm(forms.Form):
    slug = forms.SlugField(
        label=_("Short name"), max_length=60, help_text=_("Letters, digits, “-” and “_”; files of responses use it.")
    )
    name = forms.CharField(label=_("Name"), max_length=120)
    aliases = forms.CharField(
        label=_("Other names"),
        required=False,
        max_length=5000,
        widget=forms.Textarea(attrs={"rows": 5}),
        help_text=_("One on each line. Responses that hold one of them are marked before raters see them."),
    )
    description = forms.CharField(
        label=_("Description"), required=False, max_length=5000, widget=forms.Textarea(attrs={"rows": 3})
    )

    def __init__(self, *args: Any, system: System | None = None, **kwargs: Any) -> None:
        if system:
            kwargs["initial"] = {
                "name": system.name,
                "aliases": "\n".join(system.aliases),
                "description": system.description,
            }
        super().__init__(*args, **kwargs)
        if system:
            del self.fields["slug"]

    def clean_aliases(self) -> list[str]:
        return [line for line in self.cleaned_data["aliases"].splitlines() if line.strip()]
