"""What can be wrong with a model on disk or with what is asked of it. Each message names the place and the way out."""

from __future__ import annotations


class EngineError(Exception):
    """The engine cannot do what was asked. `code` is a stable word for logs and pages."""

    code = "engine"


class WeightsMissing(EngineError):
    """A folder, a file, a shard or a tensor that should be there is not."""

    code = "weights_missing"


class WrongArchitecture(EngineError):
    """The folder holds a model that this program does not run, or its tensors do not fit its config.json."""

    code = "wrong_architecture"


class CorruptShard(EngineError):
    """A weights file cannot be read, or holds numbers that are none. The message names the file."""

    code = "corrupt_shard"


class UnsafeWeights(EngineError):
    """A pickle that wants to run code, or code that a checkpoint brings along. Nothing of it has been run."""

    code = "unsafe_weights"


class AdapterMismatch(EngineError):
    """The adapter was made for another model, or is not a LoRA adapter."""

    code = "adapter_mismatch"


class TokenizerMissing(EngineError):
    """The tokenizer's file is missing or unreadable, or a chat model comes without a chat template."""

    code = "tokenizer_missing"


class DeviceUnavailable(EngineError):
    """The device asked for is not on this machine."""

    code = "device_unavailable"


class ContextTooLong(EngineError):
    """Even the newest turn alone is longer than the prompt may be."""

    code = "context_too_long"


class EmptyDialogue(EngineError):
    """There is nothing to answer."""

    code = "empty_dialogue"


class PromptRefused(EngineError):
    """A turn is no text, or the model's chat template will not take these messages, or it has none."""

    code = "prompt_refused"
