"""A model with its words: what stands between the text of a dialogue and the ids that a batch works on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from models_runtime.engine.chatglm.tokenization import restore_punctuation
from models_runtime.engine.errors import PromptRefused
from models_runtime.engine.glm2 import finish_text
from models_runtime.engine.loading import Loaded, chat_text
from models_runtime.engine.plain import PlainWords
from models_runtime.engine.prompts import Message


class Speaker(Protocol):
    """A model with its words."""

    @property
    def model(self) -> Any: ...
    @property
    def end_token_ids(self) -> Collection[int]: ...
    def as_plain(self, text: str) -> str: ...
    def encode(self, text: str) -> list[int]: ...
    def encode_chat(self, messages: list[Message]) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


class LoadedSpeaker:
    """A model from a folder, in the words of its family: special tokens in the prompt, text as the family shows it."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.model = loaded.model
        self.end_token_ids = loaded.stop_ids
        self._words = PlainWords(loaded.tokenizer)
        self.as_plain = self._words.spell_out

    def encode(self, text: str) -> list[int]:
        return self._words.ids(text, self.loaded.tokenizer.encode)

    def encode_chat(self, messages: list[Message]) -> list[int]:
        """Raises PromptRefused if the model's own chat template does not take these messages, or there is none."""
        tokenizer: Any = self.loaded.tokenizer
        if not hasattr(tokenizer, "apply_chat_template"):
            raise PromptRefused(f"{self.loaded.family} has no chat template; use one of its own templates.")
        try:
            text = chat_text(tokenizer, messages)
        except Exception as error:  # the template is the checkpoint's own program and raises what it likes
            raise PromptRefused(f"The model's chat template refuses this dialogue: {error}") from error
        return self._words.ids(text)

    def decode(self, ids: Sequence[int]) -> str:
        text = str(self.loaded.tokenizer.decode(list(ids), skip_special_tokens=True))
        if self.loaded.family == "chatglm":
            return restore_punctuation(text)
        return finish_text(text) if self.loaded.family == "chatglm2" else text
