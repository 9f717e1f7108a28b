"""Questions to an admin: what is to be trained, on what, and whether it should be launched."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, get_args

from django import forms
from django.conf import settings
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from models_runtime.engine.spec import PRESETS as DECODINGS
from training.finetune.config import PRESETS, FinetuneConfig, FirstSteps, Method, Precision, WarmUp
from training.finetune.errors import BadConfig
from training.finetune.hardware import PEAK_TFLOPS
from training.models import Corpus
from training.services.runs import Launch

DEFAULTS = FinetuneConfig()
CHOICES: Mapping[str, tuple[str, ...]] = {
    "precision": get_args(Precision),
    "method": get_args(Method),
    "warmup": get_args(WarmUp),
    "first_steps": get_args(FirstSteps),
}
LABELS: Mapping[str, Any] = {
    "steps": gettext_lazy("Steps"),
    "batch": gettext_lazy("Samples of a step"),
    "learning_rate": gettext_lazy("Learning rate"),
    "warmup_steps": gettext_lazy("Steps of the warm-up"),
    "precision": gettext_lazy("Precision"),
    "method": gettext_lazy("Method"),
    "max_context_tokens": gettext_lazy("Longest context, in tokens"),
    "max_target_tokens": gettext_lazy("Longest target, in tokens"),
    "row_tokens": gettext_lazy("Tokens of a packed row"),
    "recompute": gettext_lazy("Compute activations again"),
    "checkpoint_every": gettext_lazy("Steps between checkpoints"),
    "evaluate_every": gettext_lazy("Steps between evaluations"),
    "seed": gettext_lazy("Seed"),
    "groups": gettext_lazy("Groups of the loss"),
    "warmup": gettext_lazy("Form of the warm-up"),
    "first_steps": gettext_lazy("First steps of the schedule"),
    "beta1": "Adam: beta 1",
    "beta2": "Adam: beta 2",
    "epsilon": "Adam: epsilon",
    "weight_decay": gettext_lazy("Weight decay"),
    "clip_norm": gettext_lazy("Largest gradient norm"),
    "lora_rank": gettext_lazy("LoRA: rank"),
    "lora_alpha": gettext_lazy("LoRA: alpha"),
    "lora_targets": gettext_lazy("LoRA: modules"),
    "keep_checkpoints": gettext_lazy("Checkpoints kept"),
    "n_evaluated": gettext_lazy("Held-out samples for the loss"),
    "n_generated": gettext_lazy("Held-out samples answered at the end"),
    "tensorboard": gettext_lazy("TensorBoard files"),
}
HELP: Mapping[str, Any] = {
    "groups": gettext_lazy("The loss is the mean of so many means; it must divide the samples of a step."),
    "precision": gettext_lazy("fp16 scales the loss, as the paper’s software did; fp32 is for tests."),
    "method": gettext_lazy("full: all weights. lora: a small adapter beside the base model."),
    "row_tokens": gettext_lazy("More is faster until memory ends."),
    "recompute": gettext_lazy("Needs less memory and about a third more time."),
    "clip_norm": gettext_lazy("0: gradients are not scaled down."),
    "lora_targets": gettext_lazy("Last names of the modules, separated by commas."),
    "checkpoint_every": gettext_lazy("0: only at the end."),
    "evaluate_every": gettext_lazy("0: only at the end."),
}
N_MAIN = 12  # of LABELS; the others are folded away


class RunForm(forms.Form):
    """A launch. Of the settings, one that is empty is as the preset says, else as FinetuneConfig does."""

    name = forms.CharField(label=gettext_lazy("Name of the run"), max_length=200)
    corpus = forms.ModelChoiceField(
        label=gettext_lazy("Corpus"),
        queryset=Corpus.objects.none(),
        to_field_name="public_id",
        empty_label=gettext_lazy("Choose …"),
    )
    base = forms.CharField(
        label=gettext_lazy("Folder of the base model"),
        max_length=500,
        required=False,
        help_text=gettext_lazy("Empty: the model that the corpus was prepared for."),
    )
    preset = forms.ChoiceField(
        label=gettext_lazy("Settings"),
        required=False,
        choices=[("", gettext_lazy("The program’s own")), *((name, name) for name in PRESETS)],
        help_text=gettext_lazy(
            "soulchat-paper: what the paper gives (80 samples a step, 30,000 steps, 5e-5, fp16), and the usual values "
            "of its day for what it does not give. A field below that is filled in counts more."
        ),
    )
    device = forms.ChoiceField(label=gettext_lazy("Device"), choices=[("cpu", "CPU"), ("cuda", "GPU")])
    processes = forms.IntegerField(
        label=gettext_lazy("Devices"),
        min_value=1,
        max_value=1024,
        initial=1,
        help_text=gettext_lazy("One process for each; of a CPU usually 1."),
    )
    gpu = forms.ChoiceField(
        label=gettext_lazy("Kind of GPU"),
        required=False,
        choices=[("", gettext_lazy("Another, or none")), *((name, name) for name, _peak in PEAK_TFLOPS)],
        help_text=gettext_lazy("Hours can be told beforehand for these only."),
    )
    memory_gib = forms.FloatField(
        label=gettext_lazy("Memory of one device, in GiB"),
        required=False,
        min_value=0.1,
        help_text=gettext_lazy("A GPU’s must be said. Of a CPU, empty: what this machine has."),
    )
    queue = forms.ChoiceField(label=gettext_lazy("Queue"), required=False)
    system_name = forms.CharField(
        label=gettext_lazy("Name of the system that comes out"),
        max_length=120,
        required=False,
        help_text=gettext_lazy("Empty: the name of the run."),
    )
    decoding = forms.ChoiceField(
        label=gettext_lazy("How it answers"), choices=[(name, name) for name in DECODINGS], required=False
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        corpus: Any = self.fields["corpus"]
        corpus.queryset = Corpus.objects.exclude(content_hash="").order_by("name")
        queues = [("", gettext_lazy("Chosen when it is launched")), *((name, name) for name in settings.GPU_QUEUES)]
        self.fields["queue"].choices = [*queues, ("default", "default")]  # type: ignore[attr-defined]
        for name in LABELS:
            self.fields[name] = _setting(name)

    @property
    def main_settings(self) -> list[forms.BoundField]:
        return [self[name] for name in LABELS][:N_MAIN]

    @property
    def rare_settings(self) -> list[forms.BoundField]:
        return [self[name] for name in LABELS][N_MAIN:]

    @property
    def has_rare_errors(self) -> bool:
        return any(field.errors for field in self.rare_settings)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if self.errors:
            return data
        given = {name: data[name] for name in LABELS if data[name] not in (None, "")}
        given |= {name: given[name] == "yes" for name in ("recompute", "tensorboard") if name in given}
        if "lora_targets" in given:
            given["lora_targets"] = [word.strip() for word in given["lora_targets"].split(",") if word.strip()]
        try:
            data["config"] = FinetuneConfig.from_json({"preset": data["preset"] or None, **given})
        except BadConfig as error:
            self.add_error(None, _("These settings do not go together: %(error)s.") % {"error": error})
        return data

    def launch(self, *, public_id: uuid.UUID | None = None) -> Launch:
        """Call it on a valid form."""
        data = self.cleaned_data
        return Launch(
            name=" ".join(data["name"].split()),
            corpus=data["corpus"],
            config=data["config"],
            base=data["base"].strip(),
            device=data["device"],
            processes=data["processes"],
            gpu=data["gpu"],
            memory_gib=data["memory_gib"],
            queue=data["queue"],
            system_name=" ".join(data["system_name"].split()),
            decoding=data["decoding"] or next(iter(DECODINGS)),
            public_id=public_id or uuid.uuid4(),
        )


class ConfirmForm(forms.Form):
    """Whether the run may learn what systems are judged by."""

    accepts_leaks = forms.BooleanField(
        label=gettext_lazy("Train on these items all the same; results on their datasets will say nothing"),
        error_messages={"required": gettext_lazy("Say that it may, or prepare another corpus.")},
    )

    def __init__(self, *args: Any, has_leaks: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not has_leaks:
            del self.fields["accepts_leaks"]


def _setting(name: str) -> forms.Field:
    """The field of one setting; what stands in it in grey is what the program takes without a preset."""
    default = getattr(DEFAULTS, name)
    shown = ", ".join(default) if isinstance(default, tuple) else default
    told: dict[str, Any] = {"label": LABELS[name], "help_text": HELP.get(name, ""), "required": False}
    if name in CHOICES or isinstance(default, bool):
        pairs = [(one, one) for one in CHOICES[name]] if name in CHOICES else [("yes", _("yes")), ("no", _("no"))]
        return forms.ChoiceField(choices=[("", gettext_lazy("As the settings say")), *pairs], **told)
    widget_of: dict[type, type[forms.Field]] = {int: forms.IntegerField, float: forms.FloatField}
    field = widget_of.get(type(default), forms.CharField)(**told)
    field.widget.attrs["placeholder"] = str(shown)
    return field
