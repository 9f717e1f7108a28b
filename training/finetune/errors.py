"""What can end a training run, by name, exit code and whether trying again would be in vain. No torch in here."""

from __future__ import annotations


class FinetuneError(Exception):
    """A run cannot start or go on. The message names the place and the way out.

    error_class: a stable word for logs and pages.  is_final: trying again without a change ends in the same way.
    """

    exit_code = 70
    error_class = "Finetune"
    is_final = True


class BadConfig(FinetuneError):
    """A setting is unknown, out of range, or does not go with another."""

    exit_code = 65
    error_class = "BadConfig"


class BadData(FinetuneError):
    """The prepared corpus holds what cannot be trained on: an empty target, a sample longer than the window."""

    exit_code = 71
    error_class = "BadData"


class RunChanged(BadData):
    """Corpus, base model or settings are not those that the run began with."""

    error_class = "RunChanged"


class BadModel(FinetuneError):
    """The base model cannot be trained in this way."""

    exit_code = 66
    error_class = "BadModel"


class TargetMissing(BadModel):
    """LoRA was asked for on a module that the model does not have."""

    error_class = "TargetMissing"


class DoesNotFit(FinetuneError):
    """The run needs more memory than the hardware has."""

    exit_code = 67
    error_class = "OutOfMemory"


class LossIsNaN(FinetuneError):
    """The loss or a gradient is no number any more. The last checkpoint is from before that."""

    exit_code = 72
    error_class = "LossIsNaN"


class DiskTooFull(FinetuneError):
    """A checkpoint would not fit on the disk; nothing was written."""

    exit_code = 73
    error_class = "DiskFull"
    is_final = False


class BadCheckpoint(FinetuneError):
    """A checkpoint is damaged: its files are not those that were written."""

    exit_code = 75
    error_class = "BadCheckpoint"


class RunIsBusy(FinetuneError):
    """Another process trains this run now."""

    exit_code = 76
    error_class = "RunIsBusy"


class LostPeer(FinetuneError):
    """Another process of this run ended or does not answer."""

    exit_code = 77
    error_class = "LostPeer"
    is_final = False


class DeviceTooSmall(FinetuneError):
    """The device that is there has less memory than the run was estimated to need."""

    exit_code = 78
    error_class = "DeviceTooSmall"
