"""EXPLANATIONS: what kept a run from training, as sentences that name the way out; see jobs.explanations."""

from __future__ import annotations

from django.utils.translation import gettext_lazy

from jobs.explanations import Explanations
from models_runtime import explanations

EXPLANATIONS: Explanations = {
    **explanations.EXPLANATIONS,  # of the loader
    "BadConfig": gettext_lazy("A setting of the run is out of range, or does not go with another."),
    "BadData": gettext_lazy("The corpus holds what cannot be trained on with these settings."),
    "StoreBroken": gettext_lazy("The corpus is not as it was prepared. Prepare it again."),
    "CorpusError": gettext_lazy("The corpus cannot be used. Prepare it again."),
    "RunChanged": gettext_lazy(
        "Corpus, base model or settings are not those the run began with. Bring them back, or launch a new run."
    ),
    "BadModel": gettext_lazy("The base model does not fit the corpus, or cannot be trained in this way."),
    "TargetMissing": gettext_lazy("The model has no module of the name that an adapter was asked for."),
    "OutOfMemory": gettext_lazy(
        "It does not fit the memory. Recompute activations, shorten rows, take more devices, or train an adapter."
    ),
    "DeviceTooSmall": gettext_lazy(
        "The worker’s device has less memory than was said at the launch, and less than the run needs. Go on with a "
        "worker whose devices are large enough, or launch a new run for the devices there are."
    ),
    "DeviceUnavailable": gettext_lazy(
        "The worker has fewer GPUs than the run asks for. Go on with a worker that has them, or launch a new run for "
        "the devices there are."
    ),
    "LossIsNaN": gettext_lazy(
        "The loss is no number any more (NaN). The last checkpoint is from before; launch a run with a lower rate."
    ),
    "BadCheckpoint": gettext_lazy("Every checkpoint of the run is damaged. Put one back, or launch a new run."),
    "RunIsBusy": gettext_lazy("Another process trains this run now. Wait for it to end, then go on."),
    "LostPeer": gettext_lazy("One of the run’s processes is gone. The run goes on from the last checkpoint."),
    "Finetune": gettext_lazy("The run cannot go on."),
}
