"""Questions to an admin: how a system answers, what a template says, what is to be answered."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, replace
from decimal import Decimal
from typing import Any

from django import forms
from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.models import Dataset, Study, System
from models_runtime.endpoints.budget import Price
from models_runtime.endpoints.limiter import Limits
from models_runtime.endpoints.values import Sampling
from models_runtime.engine.prompts import TEMPLATES, Template
from models_runtime.engine.spec import PRESETS, BadSpec, DecodingConfig
from models_runtime.models import Runtime
from models_runtime.runtimes import BadSettings, EndpointSettings, LocalSettings, Settings
from models_runtime.selectors.runtimes import LAYOUTS, newest_template, template_choices, template_named
from models_runtime.services.batches import Launch, Questions

MAX_REPEATS = 20
SEED_RANGE = [MinValueValidator(0), MaxValueValidator(2**53 - 1)]


def template_fields(*, only_chat: bool) -> list[tuple[str, str]]:
    return [
        (
            choice.name,
            choice.template.id if choice.is_published else f"{choice.template.id} ({choice.template.version})",
        )
        for choice in template_choices()
        if not only_chat or choice.template.layout == "chat"
    ]


class LocalForm(forms.Form):
    """How a model from a folder answers."""

    weights = forms.CharField(label=gettext_lazy("Folder of the weights"), max_length=500)
    adapter = forms.CharField(label=gettext_lazy("Folder of a LoRA adapter"), max_length=500, required=False)
    family = forms.ChoiceField(
        label=gettext_lazy("Family"),
        required=False,
        choices=[
            ("", gettext_lazy("As the files say")),
            ("chatglm", "ChatGLM-6B"),
            ("chatglm2", "ChatGLM2-6B"),
            ("causal", gettext_lazy("Chat model with its own template")),
        ],
        help_text=gettext_lazy("If the folder holds a model of another family, nothing is answered."),
    )
    template = forms.ChoiceField(label=gettext_lazy("Prompt template"), required=False)
    preset = forms.ChoiceField(
        label=gettext_lazy("Decoding"),
        required=False,
        choices=[("", gettext_lazy("As in the fields below")), *((name, name) for name in PRESETS)],
        help_text=gettext_lazy(
            "soulchat-paper: temperature 0.95, top-p 0.75, and top-k 50, which the paper does not state and the "
            "library of its day used. greedy: always the most probable token."
        ),
    )
    is_sampled = forms.BooleanField(label=gettext_lazy("Draw at random, by seed"), required=False)
    temperature = forms.FloatField(label=gettext_lazy("Temperature"), required=False)
    top_p = forms.FloatField(label="top-p", required=False)
    top_k = forms.IntegerField(label="top-k", required=False, help_text=gettext_lazy("0: all tokens."))
    max_input_tokens = forms.IntegerField(
        label=gettext_lazy("Longest prompt, in tokens"),
        required=False,
        help_text=gettext_lazy("A longer dialogue loses its oldest turns, and the response says so."),
    )
    max_new_tokens = forms.IntegerField(label=gettext_lazy("Longest response, in tokens"), required=False)
    dtype = forms.ChoiceField(
        label=gettext_lazy("Arithmetic"), choices=[(name, name) for name in ("float32", "float16", "bfloat16")]
    )
    device = forms.ChoiceField(label=gettext_lazy("Device"), choices=[("cpu", "CPU"), ("cuda", "GPU")])
    queue = forms.ChoiceField(label=gettext_lazy("Queue"), required=False)
    batch_rows = forms.IntegerField(
        label=gettext_lazy("Dialogues at once"),
        required=False,
        min_value=1,
        help_text=gettext_lazy("Empty: as many as the device can hold."),
    )

    def __init__(self, *args: Any, runtime: Runtime | None = None, **kwargs: Any) -> None:
        now = runtime.value if runtime and runtime.kind == Runtime.Kind.LOCAL else None
        if now is None or not isinstance(now, LocalSettings):
            decoding = PRESETS["soulchat-paper"].decoding
            kwargs["initial"] = {"preset": "soulchat-paper", "dtype": "float32", **asdict(decoding)}
        else:
            template = f"{now.template.id}@{now.template.version}" if now.template else ""
            preset = next((name for name, one in PRESETS.items() if one.decoding == now.decoding), "")
            kwargs["initial"] = {**vars(now), **asdict(now.decoding), "template": template, "preset": preset}
        super().__init__(*args, **kwargs)
        queues = [("", gettext_lazy("Chosen when it is launched")), *((name, name) for name in settings.GPU_QUEUES)]
        self.fields["queue"].choices = [*queues, ("default", "default")]  # type: ignore[attr-defined]
        templates = [("", gettext_lazy("That of the family")), *template_fields(only_chat=False)]
        self.fields["template"].choices = templates  # type: ignore[attr-defined]
        roots = ", ".join(str(root) for root in settings.MODEL_DIRS)
        self.fields["weights"].help_text = _("Below one of: %(roots)s. A relative path begins there.") % {
            "roots": roots
        }

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if self.errors:
            return data
        names = ("is_sampled", "temperature", "top_p", "top_k", "max_input_tokens", "max_new_tokens")
        if data["preset"]:
            data["decoding"] = PRESETS[data["preset"]].decoding
            return data
        given = {name: data[name] for name in names if data[name] is not None}
        if not given["is_sampled"]:
            given = {name: value for name, value in given.items() if name not in ("temperature", "top_p", "top_k")}
        try:
            data["decoding"] = DecodingConfig(**given)
        except BadSpec as error:
            self.add_error(None, str(error))
        return data

    def value(self) -> Settings:
        """Call it on a valid form."""
        data = self.cleaned_data
        return LocalSettings(
            weights=data["weights"].strip(),
            family=data["family"],
            adapter=data["adapter"].strip(),
            template=template_named(data["template"]) if data["template"] else None,
            decoding=data["decoding"],
            dtype=data["dtype"],
            device=data["device"],
            queue=data["queue"],
            batch_rows=data["batch_rows"],
        )


class EndpointForm(forms.Form):
    """How a model behind an OpenAI-compatible server answers. The key goes in and never comes out."""

    base_url = forms.CharField(
        label=gettext_lazy("Base URL"), max_length=300, help_text=gettext_lazy("Such as https://api.openai.com/v1.")
    )
    model = forms.CharField(label=gettext_lazy("Name of the model"), max_length=200)
    key = forms.CharField(
        label=gettext_lazy("Key"),
        required=False,
        max_length=500,
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}, render_value=False),
    )
    forget_key = forms.BooleanField(label=gettext_lazy("Forget the stored key"), required=False)
    template = forms.ChoiceField(label=gettext_lazy("Prompt template"))
    temperature = forms.FloatField(
        label=gettext_lazy("Temperature"),
        required=False,
        help_text=gettext_lazy("What is empty is not sent: some models refuse what they do not have."),
    )
    top_p = forms.FloatField(label="top-p", required=False)
    max_new_tokens = forms.IntegerField(
        label=gettext_lazy("Longest response, in tokens"), required=False, min_value=1, initial=512
    )
    limit_name = forms.ChoiceField(
        label=gettext_lazy("… which the endpoint calls"),
        choices=[(name, name) for name in ("max_tokens", "max_completion_tokens")],
    )
    seed = forms.IntegerField(
        label=gettext_lazy("Seed"), required=False, help_text=gettext_lazy("Endpoints promise nothing for it.")
    )
    extra = forms.JSONField(
        label=gettext_lazy("Further fields of the request"),
        required=False,
        initial=dict,
        help_text=gettext_lazy("A JSON object."),
        widget=forms.Textarea(attrs={"rows": 2}),
    )
    requests_per_minute = forms.FloatField(
        label=gettext_lazy("Requests per minute"), required=False, help_text=gettext_lazy("If the provider says so.")
    )
    tokens_per_minute = forms.FloatField(label=gettext_lazy("Tokens per minute"), required=False)
    max_concurrency = forms.IntegerField(
        label=gettext_lazy("Requests at once, at most"), min_value=1, max_value=64, initial=8
    )
    timeout_seconds = forms.FloatField(
        label=gettext_lazy("Seconds for an answer"), min_value=1, max_value=3600, initial=120
    )
    is_streaming = forms.BooleanField(label=gettext_lazy("Ask for the answer as a stream"), required=False)
    currency = forms.CharField(
        label=gettext_lazy("Currency"),
        max_length=10,
        required=False,
        help_text=gettext_lazy("Empty: it costs nothing."),
    )
    input_per_million = forms.DecimalField(
        label=gettext_lazy("Price of a million tokens read"), required=False, min_value=0
    )
    output_per_million = forms.DecimalField(
        label=gettext_lazy("Price of a million tokens written"), required=False, min_value=0
    )

    def __init__(self, *args: Any, runtime: Runtime | None = None, **kwargs: Any) -> None:
        now = runtime.value if runtime and runtime.kind == Runtime.Kind.ENDPOINT else None
        if isinstance(now, EndpointSettings):
            price = {} if now.price is None else vars(now.price)
            template = f"{now.template.id}@{now.template.version}"
            extra = dict(now.sampling.extra)
            values = {**vars(now), **vars(now.sampling), **vars(now.limits), **price}
            kwargs["initial"] = values | {"template": template, "extra": extra}
        super().__init__(*args, **kwargs)
        self._price = now.price if isinstance(now, EndpointSettings) else None
        if runtime is None or not runtime.sealed_key:
            del self.fields["forget_key"]
        self.fields["template"].choices = template_fields(only_chat=True)  # type: ignore[attr-defined]
        self.fields["key"].help_text = (
            _("A key is stored. Leave this empty to keep it; it is never shown again.")
            if runtime and runtime.sealed_key
            else _("Stored encrypted and never shown again. Empty: the server asks for none.")
        )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if self.errors:
            return data
        try:
            data["value"] = self._value(data)
        except (BadSettings, ValueError) as error:
            self.add_error(None, str(error))
        return data

    def _value(self, data: dict[str, Any]) -> Settings:
        extra = data["extra"] or {}
        if not isinstance(extra, dict):
            raise ValueError(_("Further fields must be a JSON object, {…}."))
        price = None
        if data["currency"]:
            if data["input_per_million"] is None or data["output_per_million"] is None:
                raise ValueError(_("A price needs both amounts: for tokens read and for tokens written."))
            today = timezone.localdate()
            price = Price(data["currency"], data["input_per_million"], data["output_per_million"], today)
            if self._price is not None and replace(price, since=self._price.since) == self._price:
                price = self._price  # nobody looked it up anew
        return EndpointSettings(
            base_url=data["base_url"].strip(),
            model=data["model"].strip(),
            template=template_named(data["template"]) or TEMPLATES["chat"],
            sampling=Sampling(
                temperature=data["temperature"],
                top_p=data["top_p"],
                max_new_tokens=data["max_new_tokens"],
                limit_name=data["limit_name"],
                seed=data["seed"],
                extra=extra,
            ),
            timeout_seconds=data["timeout_seconds"],
            is_streaming=data["is_streaming"],
            limits=Limits(
                max_concurrency=data["max_concurrency"],
                start_concurrency=min(2, data["max_concurrency"]),
                requests_per_minute=data["requests_per_minute"],
                tokens_per_minute=data["tokens_per_minute"],
            ),
            price=price,
        )

    def value(self) -> Settings:
        """Call it on a valid form."""
        found: Settings = self.cleaned_data["value"]
        return found


class TemplateForm(forms.Form):
    """The text of a prompt template."""

    layout = forms.ChoiceField(label=gettext_lazy("Layout"), choices=list(LAYOUTS.items()))
    client = forms.CharField(label=gettext_lazy("Label of the client"), required=False, strip=False, max_length=50)
    counsellor = forms.CharField(
        label=gettext_lazy("Label of the counsellor"), required=False, strip=False, max_length=50
    )
    separator = forms.CharField(
        label=gettext_lazy("Between two turns"),
        required=False,
        strip=False,
        max_length=20,
        help_text=gettext_lazy("In JSON’s way of writing: \\n is a new line."),
    )
    instruction = forms.CharField(
        label=gettext_lazy("Instruction"),
        required=False,
        strip=False,
        max_length=20_000,
        widget=forms.Textarea(attrs={"rows": 8}),
        help_text=gettext_lazy("What stands before the dialogue. Paste published wording where parity matters."),
    )
    closing = forms.CharField(
        label=gettext_lazy("After the cue"), required=False, strip=False, max_length=200,
        help_text=gettext_lazy("In JSON’s way of writing: \\n is a new line."),
    )  # fmt: skip
    cut_at = forms.CharField(
        label=gettext_lazy("End the response before"),
        required=False,
        strip=False,
        max_length=500,
        help_text=gettext_lazy('A JSON list of marks, such as ["\\nEND"].'),
    )
    hides_thinking = forms.BooleanField(
        label=gettext_lazy("What stands before </think> is no part of the response"), required=False
    )

    def __init__(self, *args: Any, template: Template, **kwargs: Any) -> None:
        self.template = template
        escaped = {
            name: json.dumps(getattr(template, name), ensure_ascii=False)[1:-1] for name in ("separator", "closing")
        }
        cut_at = json.dumps(list(template.cut_at), ensure_ascii=False) if template.cut_at else ""
        kwargs["initial"] = {**vars(template), **escaped, "cut_at": cut_at}
        super().__init__(*args, **kwargs)

    def _unescaped(self, name: str) -> str:
        try:
            return str(json.loads(f'"{self.cleaned_data[name]}"'))
        except ValueError as error:
            raise forms.ValidationError(_("This is no text in JSON’s way of writing.")) from error

    def clean_separator(self) -> str:
        return self._unescaped("separator")

    def clean_closing(self) -> str:
        return self._unescaped("closing")

    def clean_instruction(self) -> str:
        return str(self.cleaned_data["instruction"]).replace("\r\n", "\n")  # as a browser sends line breaks

    def clean_cut_at(self) -> list[str]:
        text = self.cleaned_data["cut_at"].strip()
        try:
            marks = json.loads(text) if text else []
        except ValueError:
            marks = None
        if not isinstance(marks, list) or not all(isinstance(mark, str) and mark for mark in marks):
            raise forms.ValidationError(_("This is no JSON list of texts."))
        return marks

    def content(self) -> dict[str, Any]:
        """Call it on a valid form."""
        return {"id": self.template.id, **self.cleaned_data}


class NewTemplateForm(TemplateForm):
    """A template under a name that none has yet; `template` is what it begins with."""

    id = forms.SlugField(
        label=gettext_lazy("Name"),
        max_length=60,
        help_text=gettext_lazy("Letters, digits and hyphens. It stands beside each response and cannot be changed."),
    )
    field_order = ["id"]

    def __init__(self, *args: Any, template: Template, **kwargs: Any) -> None:
        super().__init__(*args, template=template, **kwargs)
        self.initial["id"] = ""

    def clean_id(self) -> str:
        name = str(self.cleaned_data["id"])
        if name == "new" or newest_template(name) is not None:
            raise forms.ValidationError(_("There is a template of this name. Choose another one."))
        return name


class BatchForm(forms.Form):
    """Which systems answer what. `limits` holds the most that a priced system may cost, once they are asked for."""

    systems = forms.ModelMultipleChoiceField(
        label=gettext_lazy("Systems"),
        queryset=System.objects.none(),
        to_field_name="slug",
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": gettext_lazy("Choose at least one system.")},
    )
    study = forms.ModelChoiceField(
        label=gettext_lazy("All items of a study in preparation"),
        queryset=Study.objects.none(),
        to_field_name="public_id",
        required=False,
        empty_label=gettext_lazy("None: the items of a dataset"),
    )
    dataset = forms.ModelChoiceField(
        label=gettext_lazy("Dataset"),
        queryset=Dataset.objects.order_by("name"),
        to_field_name="slug",
        required=False,
        empty_label=gettext_lazy("Choose …"),
    )
    n = forms.IntegerField(
        label=gettext_lazy("Draw so many items"), min_value=1, required=False, help_text=gettext_lazy("Empty: all.")
    )
    draw_seed = forms.IntegerField(label=gettext_lazy("Seed of the draw"), initial=1, validators=SEED_RANGE)
    repeats = forms.IntegerField(
        label=gettext_lazy("Responses to each item"),
        initial=1,
        min_value=1,
        max_value=MAX_REPEATS,
        help_text=gettext_lazy("Studies show the first; more of them tell how much a system varies."),
    )
    seed = forms.IntegerField(
        label=gettext_lazy("Seed of the responses"),
        initial=1,
        validators=SEED_RANGE,
        help_text=gettext_lazy("A local system writes the same text again for the same seed."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        systems: Any = self.fields["systems"]
        systems.queryset = System.objects.filter(runtime__isnull=False).order_by("name")
        study: Any = self.fields["study"]
        study.queryset = Study.objects.drafts().order_by("-created_at")

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if not self.errors and bool(data.get("study")) == bool(data.get("dataset")):
            self.add_error("dataset", _("Choose a dataset, or a study, and not both."))
        return data

    def questions(self) -> Questions:
        """Call it on a valid form."""
        data = self.cleaned_data
        n = None if data["study"] else data["n"]
        return Questions(dataset=data["dataset"], study=data["study"], n=n, draw_seed=data["draw_seed"])

    def launch(self, *, limits: dict[int, Decimal], public_id: uuid.UUID) -> Launch:
        """Call it on a valid form."""
        data = self.cleaned_data
        return Launch(
            systems=list(data["systems"]),
            questions=self.questions(),
            repeats=data["repeats"],
            seed=data["seed"],
            limits=limits,
            public_id=public_id,
        )


class LimitsForm(forms.Form):
    """The most that each priced system may cost."""

    def __init__(self, *args: Any, priced: dict[System, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fields_of = {f"limit-{system.slug}": system for system in priced}
        for name, system in self._fields_of.items():
            self.fields[name] = forms.DecimalField(
                label=_("Stop %(system)s before it costs more than, in %(currency)s")
                % {"system": system.name, "currency": priced[system]},
                min_value=Decimal("0.0001"),
                max_digits=14,
                decimal_places=6,
            )

    def limits(self) -> dict[int, Decimal]:
        """By system id. Call it on a valid form."""
        return {system.pk: self.cleaned_data[name] for name, system in self._fields_of.items()}
