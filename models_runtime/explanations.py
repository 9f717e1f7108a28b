"""EXPLANATIONS: what kept a system from answering, as sentences that name the way out; see jobs.explanations."""

from __future__ import annotations

from django.utils.translation import gettext_lazy

from jobs import explanations

EXPLANATIONS: explanations.Explanations = {
    # One item
    "context_too_long": gettext_lazy("The newest turn alone is longer than the prompt may be. The other items go on."),
    "empty_dialogue": gettext_lazy("There is nothing to answer: no turn, an empty one, or the counsellor spoke last."),
    "prompt_refused": gettext_lazy("The model’s own chat template does not take this dialogue."),
    "out_of_memory": gettext_lazy("There was not enough memory for this dialogue alone. Allow shorter prompts."),
    "invalid_scores": gettext_lazy("The model computed no numbers for this dialogue (NaN). Try float32."),
    "empty_response": gettext_lazy("Nothing was left of the response once special tokens and blanks were removed."),
    "withheld": gettext_lazy("The provider’s filter withheld the answer."),
    "context_length": gettext_lazy("The dialogue is too long for this endpoint."),
    "bad_request": gettext_lazy("The endpoint refuses this request."),
    "bad_item": gettext_lazy("There is nothing to answer in this dialogue, or something that cannot be sent."),
    "rate": gettext_lazy("The endpoint kept asking for fewer requests. Enter its limits, or try again later."),
    "overloaded": gettext_lazy("The endpoint could not answer. Try again later."),
    "timeout": gettext_lazy("The endpoint took too long. Try again later, or allow more time."),
    "unreachable": gettext_lazy("The endpoint cannot be reached. Check that it runs and that its URL is right."),
    "half": gettext_lazy("The connection ended in the middle of an answer."),
    "empty": gettext_lazy("The endpoint answered without text."),
    "malformed": gettext_lazy("What came back is no answer of such an API. Check that the URL ends in /v1."),
    # A whole part: the endpoint
    "auth": gettext_lazy("The endpoint does not accept the key. Enter the key anew on the system’s page, then go on."),
    "quota": gettext_lazy("The provider’s account is used up. Top it up, then go on."),
    "no_model": gettext_lazy("The endpoint has no such model. Check its name, then launch a new batch."),
    "parameter": gettext_lazy("The model does not take one of the sampling parameters. Leave it empty."),
    "redirect": gettext_lazy("The endpoint redirects, which is never followed. Enter the URL where it really is."),
    "refused_address": gettext_lazy("The endpoint leads to an address that may not be called."),
    "budget": gettext_lazy("The next request could pass the limit of money. Raise the limit, then go on."),
    "NotAllowed": gettext_lazy("The endpoint is not on the list of those that may be called (ALLOWED_ENDPOINTS)."),
    # A whole part: the weights
    "WeightsMissing": gettext_lazy("A folder or file of the weights is missing. Put it there, then go on."),
    "WrongArchitecture": gettext_lazy("The folder holds a model that cannot be run here, or its files do not fit."),
    "CorruptShard": gettext_lazy("A file of the weights is damaged. Fetch it again, then go on."),
    "UnsafeWeights": gettext_lazy("The weights want to run code of their own, and were not used. Take safetensors."),
    "AdapterMismatch": gettext_lazy("The adapter does not fit the model, or is no LoRA adapter."),
    "TokenizerMissing": gettext_lazy("The tokenizer or its chat template is missing. Copy the whole folder."),
    "DeviceUnavailable": gettext_lazy("The device is not on the worker’s machine. Choose another."),
    "OtherSpec": gettext_lazy("The weights are not those the batch began with. Put them back, or launch anew."),
    "FolderRefused": gettext_lazy("The folder is not below one of those that weights may lie in (MODEL_DIRS)."),
    "BadJob": gettext_lazy("The settings of the system cannot be used."),
    # A whole part: the process
    "OutOfMemory": gettext_lazy("The memory of the device or machine was not enough. Allow fewer dialogues at once."),
}


def explain(code: str) -> str:
    """The sentence for an error code of an item, or for an error class of a whole part."""
    return explanations.explain(code, EXPLANATIONS)
