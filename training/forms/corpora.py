"""Questions to an admin about corpora and rewritings."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from django import forms
from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.validators import MaxValueValidator, MinValueValidator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.formats.problems import Problem
from annotation.formats.source import Source
from annotation.models import System
from annotation.services.uploads import upload_path
from jobs.ledger import OVER
from models_runtime.forms import template_fields
from models_runtime.selectors.runtimes import template_named
from training.corpus.cleaning import BadRules, Rules
from training.corpus.errors import CorpusError, SourceRefused
from training.corpus.formats import MAX_BROKEN
from training.corpus.rewriting import STYLES, Checks, Question
from training.corpus.rewriting_run import read_questions
from training.corpus.samples import Limits
from training.corpus.store import file_digest
from training.models import Corpus, Rewriting
from training.selectors.rewritings import far_host
from training.services.rewriting import MAX_TRIES, UPLOADS

MAX_QUESTIONS_BYTES = 64 * 1024**2  # read while the person waits, which takes some seconds
SEED_RANGE = [MinValueValidator(0), MaxValueValidator(2**53 - 1)]
CUTS = [
    ("", gettext_lazy("As usual for the family: ChatGLM loses the end, others their oldest turns")),
    ("ends", gettext_lazy("What stands after the limit")),
    ("oldest_turns", gettext_lazy("Its oldest turns")),
    ("leave_out", gettext_lazy("It is left out")),
]


class FilesInput(forms.ClearableFileInput):
    allow_multiple_selected = True


class FilesField(forms.FileField):
    """Any number of files, none of them larger than the site takes."""

    widget = FilesInput

    def clean(self, data: Any, initial: Any = None) -> list[UploadedFile[Any]]:
        files = [super(FilesField, self).clean(one, initial) for one in data or []]
        if any(file.size > settings.UPLOAD_MAX_BYTES for file in files):
            limit = settings.UPLOAD_MAX_BYTES // 1024**2
            raise forms.ValidationError(_("The file is larger than %(limit)s MB."), params={"limit": limit})
        return files


class CorpusForm(forms.Form):
    """Which dialogues become a corpus, for which model, and what must not be in it."""

    name = forms.CharField(label=gettext_lazy("Name"), max_length=200)
    uploads = FilesField(label=gettext_lazy("Files"), required=False, allow_empty_file=True)
    paths = forms.CharField(
        label=gettext_lazy("Files on the machine"),
        required=False,
        max_length=5000,
        widget=forms.Textarea(attrs={"rows": 2}),
    )
    rewriting = forms.ModelChoiceField(
        label=gettext_lazy("Dialogues of a rewriting"),
        queryset=Rewriting.objects.filter(n_accepted__gt=0, job__state__in=OVER),
        to_field_name="public_id",
        required=False,
        empty_label=gettext_lazy("None"),
    )
    weights = forms.CharField(label=gettext_lazy("Folder of the base model"), max_length=500)
    template = forms.ChoiceField(label=gettext_lazy("Prompt template"), required=False)
    test_share = forms.FloatField(
        label=gettext_lazy("Share of dialogues for the test"),
        initial=0.02,
        min_value=0,
        max_value=0.9,
        help_text=gettext_lazy("Dialogues are drawn by seed; those that open alike go together."),
    )
    seed = forms.IntegerField(label=gettext_lazy("Seed of the draw"), initial=1, validators=SEED_RANGE)
    is_against_database = forms.BooleanField(
        label=gettext_lazy("Leave out dialogues that hold an item of a dataset here"), required=False, initial=True
    )
    is_cleaned = forms.BooleanField(
        label=gettext_lazy("Clean: filtered strings, personal data, near duplicates"), required=False, initial=True
    )
    rules = forms.CharField(
        label=gettext_lazy("Rules of cleaning"),
        required=False,
        max_length=20_000,
        widget=forms.Textarea(attrs={"rows": 12, "spellcheck": "false"}),
        help_text=gettext_lazy(
            "A JSON object. Actions are remove, review (a person decides), mask and keep; what is left out is as here."
        ),
    )
    context = forms.IntegerField(label=gettext_lazy("Longest context, in tokens"), initial=1536, min_value=8)
    target = forms.IntegerField(label=gettext_lazy("Longest target, in tokens"), initial=512, min_value=4)
    cut = forms.ChoiceField(label=gettext_lazy("What a longer sample loses"), choices=CUTS, required=False)
    max_broken = forms.IntegerField(
        label=gettext_lazy("Broken records of a file that are passed over, at most"), initial=MAX_BROKEN, min_value=0
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        rules = json.dumps(Rules().to_json(), ensure_ascii=False, indent=1)
        kwargs["initial"] = {"rules": rules, **kwargs.get("initial", {})}
        super().__init__(*args, **kwargs)
        self.fields["template"].choices = [  # type: ignore[attr-defined]
            ("", gettext_lazy("That of the family")),
            *template_fields(only_chat=False),
        ]
        for name, roots in (("weights", settings.MODEL_DIRS), ("paths", settings.CORPUS_DIRS)):
            self.fields[name].help_text = _("Below one of: %(roots)s. A relative path begins there.") % {
                "roots": ", ".join(map(str, roots))
            }
        self.fields["paths"].help_text += " " + _("One on each line.")

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"])
        if Corpus.objects.filter(name=name).exists():
            raise forms.ValidationError(_("There is a corpus of this name already. Choose another name."))
        return name

    def clean_paths(self) -> list[str]:
        return [line.strip() for line in self.cleaned_data["paths"].splitlines() if line.strip()]

    def clean_rules(self) -> dict[str, Any]:
        try:
            return Rules.from_json(json.loads(self.cleaned_data["rules"] or "{}")).to_json()
        except BadRules as error:
            raise forms.ValidationError(str(error)) from error
        except ValueError as error:
            raise forms.ValidationError(_("This is no JSON: %(reason)s"), params={"reason": error}) from error

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if not self.errors:
            try:
                Limits(data["context"], data["target"], data["cut"] or "ends")
            except CorpusError as error:
                self.add_error("context", str(error))
            if not (data["uploads"] or data["rewriting"] or data["paths"]):
                self.add_error("uploads", _("Choose at least one file, or a rewriting."))
        return data

    def plan(self) -> dict[str, Any]:
        """See Corpus. Call it on a valid form."""
        data = self.cleaned_data
        template = template_named(data["template"])
        return {
            "template": None if template is None else template.to_json(),
            "test_share": data["test_share"],
            "seed": data["seed"],
            "limits": {"context": data["context"], "target": data["target"], "cut": data["cut"] or None},
            "max_broken": data["max_broken"],
            "rules": data["rules"] if data["is_cleaned"] else None,
            "is_against_database": data["is_against_database"],
        }


class RewritingForm(forms.Form):
    """Which questions become dialogues, who writes them, how he is asked, and what is accepted."""

    name = forms.CharField(label=gettext_lazy("Name"), max_length=200)
    file = forms.FileField(
        label=gettext_lazy("File of questions"),
        allow_empty_file=True,
        error_messages={"required": gettext_lazy("Choose the file of questions.")},
        help_text=gettext_lazy("JSONL, CSV or XLSX with key, question, answer and, where known, topic."),
    )
    system = forms.ModelChoiceField(
        label=gettext_lazy("System that writes"),
        queryset=System.objects.filter(runtime__isnull=False).order_by("name"),
        to_field_name="slug",
        empty_label=gettext_lazy("Choose …"),
    )
    may_send = forms.BooleanField(
        label=gettext_lazy("These texts may be sent to the endpoint of that system"), required=False
    )
    style = forms.ChoiceField(
        label=gettext_lazy("Style"),
        choices=[
            ("empathy", gettext_lazy("With the four requirements of empathy, as in the paper")),
            ("plain", gettext_lazy("Plain: a dialogue and nothing else")),
        ],
    )
    instruction = forms.CharField(
        label=gettext_lazy("Wording of your own"),
        required=False,
        max_length=20_000,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 8}),
        help_text=gettext_lazy(
            "Empty: ours, as below. It must hold {question} and {answer}, and may hold {client}, {counsellor}, {least} "
            "and {most}."
        ),
    )
    least_rounds = forms.IntegerField(label=gettext_lazy("Rounds, at least"), initial=8, min_value=1, max_value=200)
    most_rounds = forms.IntegerField(label=gettext_lazy("Rounds, at most"), initial=20, min_value=1, max_value=200)
    most_characters = forms.IntegerField(
        label=gettext_lazy("Characters of a turn, at most"), initial=500, min_value=1, max_value=10_000
    )
    n_tries = forms.IntegerField(
        label=gettext_lazy("Tries for each question"), initial=3, min_value=1, max_value=MAX_TRIES
    )
    max_new_tokens = forms.IntegerField(
        label=gettext_lazy("Longest text, in tokens"), initial=3000, min_value=16, max_value=32_768
    )
    seed = forms.IntegerField(
        label=gettext_lazy("Seed"),
        initial=1,
        validators=SEED_RANGE,
        help_text=gettext_lazy("A local system writes the same text again for the same seed."),
    )
    limit = forms.DecimalField(
        label=gettext_lazy("Stop before it costs more than"),
        required=False,
        min_value=Decimal("0.0001"),
        max_digits=14,
        decimal_places=6,
        help_text=gettext_lazy("In the currency of the system’s price; needed where it has one."),
    )
    upload = forms.CharField(required=False, max_length=64, widget=forms.HiddenInput)
    file_name = forms.CharField(required=False, max_length=255, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["file"].required = not self.data.get("upload")  # the page that asks once more has it as an upload
        self.read: list[Question] = []
        self.problems: list[Problem] = []

    def clean_instruction(self) -> str:
        return str(self.cleaned_data["instruction"]).replace("\r\n", "\n")  # as a browser sends line breaks

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"])
        if Rewriting.objects.filter(name=name).exists():
            raise forms.ValidationError(_("There is a rewriting of this name already. Choose another name."))
        return name

    def clean_file(self) -> Any:
        """The file, once all of it is found good; `problems` has the places where it is not."""
        file = self.cleaned_data["file"]
        if file is None:
            return None
        if file.size > MAX_QUESTIONS_BYTES:
            limit = MAX_QUESTIONS_BYTES // 1024**2
            raise forms.ValidationError(_("The file is larger than %(limit)s MB."), params={"limit": limit})
        with NamedTemporaryFile() as copy:
            for chunk in file.chunks():
                copy.write(chunk)
            copy.flush()
            self._read(Path(copy.name), file.name)
        file.seek(0)
        return file

    def _read(self, path: Path, name: str) -> None:
        try:
            self.read = read_questions(Source(path, name))
        except SourceRefused as error:
            self.problems = error.problems
            raise forms.ValidationError(_("The file cannot be taken: see the places below.")) from error
        self.sha256 = file_digest(path)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if data.get("file") is None and "file" not in self.errors:
            path = upload_path(data["upload"], folder=UPLOADS) if data.get("upload") else None
            try:
                if path is None or not path.is_file():
                    raise forms.ValidationError(_("Choose the file of questions."))
                self._read(path, data["file_name"])
            except forms.ValidationError as error:
                self.add_error("file", error)
        try:
            ours = STYLES[data["style"]]
            data["how"] = replace(ours, instruction=data["instruction"]) if data.get("instruction") else ours
        except CorpusError as error:
            self.add_error("instruction", str(error))
        except KeyError:
            pass  # told already
        try:
            data["checks"] = Checks(data["least_rounds"], data["most_rounds"], data["most_characters"])
        except CorpusError as error:
            self.add_error("most_rounds", str(error))
        except KeyError:
            pass
        if data.get("system") and not data["may_send"] and (host := far_host(data["system"])):
            self.add_error(
                "may_send",
                _("%(system)s answers at %(host)s, outside of this site. Say that the texts may be sent there.")
                % {"system": data["system"].name, "host": host},
            )
        return data


class PrepareAgainForm(forms.Form):
    """A name for the corpus that follows the verdicts."""

    name = forms.CharField(label=gettext_lazy("Name of the new corpus"), max_length=200)
