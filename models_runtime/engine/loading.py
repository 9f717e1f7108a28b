"""A model and its tokenizer from a local folder: family, device, dtype and adapter are decided here, once.

Nothing is fetched and nothing that a folder brings along is run. The families:

    chatglm     ChatGLM-6B (v1), SoulChat, the first MeChat as an adapter;  published files, int8 and int4 too
    chatglm2    ChatGLM2-6B and today's MeChat;  published files
    causal      any chat model that transformers knows, with a chat template, as safetensors

Tensors go from their file to the device one by one, so that memory holds the model once, and not twice.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

import torch
from huggingface_hub.errors import StrictDataclassError
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GlmForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.glm.modeling_glm import GlmRotaryEmbedding

from models_runtime.engine import checkpoints, glm2
from models_runtime.engine.chatglm.configuration import RotaryAngles, is_chatglm, is_chatglm2, published_config
from models_runtime.engine.chatglm.modeling import ChatGLMForConditionalGeneration
from models_runtime.engine.chatglm.tokenization import ChatGLMTokenizer
from models_runtime.engine.checkpoints import Checkpoint, Tell, tell_nobody
from models_runtime.engine.errors import (
    AdapterMismatch,
    DeviceUnavailable,
    TokenizerMissing,
    UnsafeWeights,
    WeightsMissing,
    WrongArchitecture,
)
from models_runtime.engine.prompts import Message
from models_runtime.engine.spec import TOKENIZER_FILES, VOCABULARY_FILES, Family

logger = logging.getLogger(__name__)

Named = Iterator[tuple[str, Tensor, Path]]

ASKS_FOR_TODAY = re.compile(r"""strftime_now\(\s*["']([^"'\\]*)["']""")
TODAY = datetime.date(2024, 7, 26)  # the day that Llama 3's template takes where nobody tells it one
SIMPLEST = "你好"

# Keys of a config.json by which transformers would read other weights than those in the digest, or fetch kernels.
LEADS_OUT = {
    *("transformers_weights", "_attn_implementation", "attn_implementation"),
    *("_experts_implementation", "experts_implementation"),
}
CHATGLM_NUMBERS = {
    *("vocab_size", "hidden_size", "num_layers", "num_attention_heads", "inner_hidden_size", "max_sequence_length"),
    *("layernorm_epsilon", "bos_token_id", "eos_token_id", "mask_token_id", "gmask_token_id", "pad_token_id"),
}
ADAPTER_STEMS = {checkpoints.SAFETENSORS: "adapter_model", checkpoints.BIN: "adapter_model"}


class Tokenizer(Protocol):
    """What generation asks of a tokenizer; those of transformers have it too."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...

    def decode(self, ids: Any, *, skip_special_tokens: bool = True) -> Any: ...


@dataclass(frozen=True)
class Loaded:
    """A model ready to answer.

    stop_ids: tokens that end a response.  pad_id: the filler of shorter rows.
    context_length: prompt and response together, in tokens, as far as the model was made for.
    weights_digest: SHA-256 over weights, config.json and tokenizer.  adapter_digest: the same of the adapter, or None.
    notes: what was found and decided on the way, for the record.
    """

    model: PreTrainedModel
    tokenizer: Tokenizer
    family: Family
    stop_ids: frozenset[int]
    pad_id: int
    context_length: int
    weights_digest: str
    adapter_digest: str | None
    device: torch.device
    dtype: torch.dtype
    notes: tuple[str, ...] = ()


def load(
    weights: Path,
    *,
    adapter: Path | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    attention: Literal["eager", "sdpa"] = "sdpa",
    digest_cache: Path | None = None,
    tell: Tell = tell_nobody,
) -> Loaded:
    """The model of a folder on the device, in evaluation mode, its LoRA adapter merged into the weights.

    digest_cache: a JSON file that spares hashing unchanged files again; see checkpoints.digest.
    tell: called again and again while files are read.

    Raises a subclass of EngineError: WeightsMissing, WrongArchitecture, CorruptShard, UnsafeWeights, TokenizerMissing,
    AdapterMismatch or DeviceUnavailable.
    """
    device = _device(device)
    config = checkpoints.read_json(_folder(weights) / "config.json")
    family = tell_family(config, weights)
    notes: list[str] = []
    # The small things first: whatever is missing is said before gigabytes are read.
    checkpoint = replace(checkpoints.find_weights(weights, only_safetensors=family == "causal"), tell=tell)
    tokenizer = _tokenizer(weights, family, config)
    adapter_checkpoint = None if adapter is None else _find_adapter(adapter)
    if family == "chatglm":
        model = _load_chatglm(checkpoint, config, dtype, device, attention, notes)
    elif family == "chatglm2":
        model = _load_chatglm2(checkpoint, config, dtype, device, attention)
    else:
        model = _load_causal(checkpoint, config, dtype, device, attention)
    if adapter_checkpoint is not None:
        model = _merge_adapter(model, adapter_checkpoint, family, notes)
    _check_vocabulary(weights, tokenizer, model)
    return Loaded(
        model=model.eval(),
        tokenizer=tokenizer,
        family=family,
        stop_ids=_stop_ids(weights, model, tokenizer),
        pad_id=_pad_id(tokenizer, model),
        context_length=int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2048),
        weights_digest=weights_digest(weights, cache=digest_cache, tell=tell),
        adapter_digest=None if adapter is None else adapter_digest(adapter, cache=digest_cache),
        device=device,
        dtype=dtype,
        notes=tuple(notes),
    )


def tell_family(config: Mapping[str, Any], folder: Path) -> Family:
    """Which family a parsed config.json belongs to. ChatGLM 1 to 4 all call themselves "chatglm", so the keys decide.

    Raises WrongArchitecture for a model that cannot be run here, UnsafeWeights if it needs code of its own.
    """
    model_type = config.get("model_type")
    if (folder / "adapter_config.json").is_file():  # transformers would add it to the weights without a word
        raise WrongArchitecture(
            f"{folder} holds a model and an adapter (adapter_config.json); move the adapter to a folder of its own, "
            "and name that as the adapter if it is meant"
        )
    if is_chatglm(config):
        if config.get("position_encoding_2d") is False:
            raise WrongArchitecture(f"{folder}: position_encoding_2d is false, and no published ChatGLM-6B is so")
        if config.get("pre_seq_len"):
            raise WrongArchitecture(f"{folder} is tuned by P-tuning (pre_seq_len), which is not supported; use LoRA")
        _check_numbers(config, folder)
        return "chatglm"
    if is_chatglm2(config):
        if _is_chatglm3(config, folder):
            raise WrongArchitecture(
                f"{folder} is ChatGLM3 or GLM-4 in its first form, whose prompts are others; of GLM-4, use the release "
                "whose config.json says glm"
            )
        if config.get("quantization_bit"):
            raise WrongArchitecture(f"{folder} is ChatGLM2 in int{config['quantization_bit']}; use its plain weights")
        return "chatglm2"
    if model_type == "chatglm":
        raise WrongArchitecture(
            f"{folder}/config.json says chatglm, and has the keys of neither ChatGLM-6B nor ChatGLM2"
        )
    if not isinstance(model_type, str):
        raise WrongArchitecture(f"{folder}/config.json has no model_type; it is no model of transformers")
    if model_type not in CONFIG_MAPPING:
        if "auto_map" in config:
            raise UnsafeWeights(f"{folder} ({model_type}) needs code that it brings along, which is never run")
        raise WrongArchitecture(f"{folder}: this release of transformers does not know {model_type}")
    try:
        _settings(config)
    except Exception as error:  # each model checks its own settings in its own way
        raise WrongArchitecture(f"{folder}/config.json is no {model_type}: {_reason(error)}") from error
    return "causal"


def _settings(config: Mapping[str, Any]) -> PreTrainedConfig:
    """A config.json as transformers' own settings, without what leads out of the folder. It may raise anything."""

    def inside(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: inside(inner) for key, inner in value.items() if key not in LEADS_OUT}
        return [inside(inner) for inner in value] if isinstance(value, list) else value

    return CONFIG_MAPPING[config["model_type"]].from_dict(inside(config))


def _check_numbers(config: Mapping[str, Any], folder: Path) -> None:
    """Raises WrongArchitecture for a setting of ChatGLM-6B's that is no number, where one is needed."""
    for key in CHATGLM_NUMBERS & config.keys():
        value, wanted = config[key], (int, float) if key == "layernorm_epsilon" else (int,)
        if type(value) not in wanted or (value <= 0 and not key.endswith("_id")):
            raise WrongArchitecture(f"{folder}/config.json: {key} is {value!r}, and must be a number above 0")
    if config.get("rotary_angles", "float32") not in get_args(RotaryAngles):
        raise WrongArchitecture(f"{folder}/config.json: rotary_angles is none of {', '.join(get_args(RotaryAngles))}")


def load_tokenizer(weights: Path) -> tuple[Tokenizer, Family]:
    """The tokenizer of a folder and its family, without the weights. Raises as `load` does."""
    config = checkpoints.read_json(_folder(weights) / "config.json")
    family = tell_family(config, weights)
    return _tokenizer(weights, family, config), family


def weights_digest(weights: Path, *, cache: Path | None = None, tell: Tell = tell_nobody) -> str:
    """SHA-256 over everything that `load` reads from a folder: weights, config.json, tokenizer."""
    folder = _folder(weights)
    family = tell_family(checkpoints.read_json(folder / "config.json"), folder)
    found = checkpoints.find_weights(folder, only_safetensors=family == "causal")
    beside = [folder / name for name in TOKENIZER_FILES[family] if (folder / name).is_file()]
    return checkpoints.digest([*found.files, folder / "config.json", *beside], cache=cache, tell=tell)


def adapter_digest(adapter: Path, *, cache: Path | None = None) -> str:
    """SHA-256 over an adapter's weights and settings."""
    found = _find_adapter(adapter)
    return checkpoints.digest([*found.files, adapter / "adapter_config.json"], cache=cache)


def _load_chatglm(
    checkpoint: Checkpoint,
    config: Mapping[str, Any],
    dtype: torch.dtype,
    device: torch.device,
    attention: str,
    notes: list[str],
) -> PreTrainedModel:
    settings = published_config(config, attn_implementation=attention, quantization_bit=0)
    model = _on_meta(ChatGLMForConditionalGeneration, settings)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    head, words = "lm_head.weight", "transformer.word_embeddings.weight"

    def own() -> Named:
        second: Tensor | None = None
        for name, tensor, file in _dequantised(checkpoints.tensors(checkpoint), shapes, notes):
            if name == head:
                second = tensor.clone()
            elif not name.endswith("rotary_emb.inv_freq"):  # a table that the published code never read either
                yield name, tensor, file
        # The same table, stored twice. The published code ties the two on loading, and the embeddings win.
        first = model.get_parameter(words)
        if second is not None and not first.is_meta and not torch.equal(second.to(first), first):
            notes.append("lm_head differs from the word embeddings; the embeddings are used for both")
            logger.warning("%s: %s", checkpoint.folder, notes[-1])

    _assign(model, own(), dtype, device, checkpoint, optional={head})
    model.tie_weights()
    return cast(PreTrainedModel, model)


def _load_chatglm2(
    checkpoint: Checkpoint, config: Mapping[str, Any], dtype: torch.dtype, device: torch.device, attention: str
) -> PreTrainedModel:
    try:
        settings = glm2.glm_config(config)
    except (KeyError, ValueError, TypeError, StrictDataclassError) as error:
        raise WrongArchitecture(f"{checkpoint.folder}/config.json is no ChatGLM2: {_reason(error)}") from error
    settings._attn_implementation = attention
    model = _on_meta(GlmForCausalLM, settings)

    def renamed() -> Named:
        for name, tensor, file in checkpoints.tensors(checkpoint):
            try:
                for new, part in glm2.renamed(name, tensor, settings):
                    yield new, part, file
            except (KeyError, RuntimeError, ValueError) as error:
                raise WrongArchitecture(
                    f"{file}: {name} {tuple(tensor.shape)} does not fit ChatGLM2 as config.json has it"
                ) from error

    _assign(model, renamed(), dtype, device, checkpoint)
    # Its table of frequencies is no weight: computed, and lost on the way here.
    model.model.rotary_emb = GlmRotaryEmbedding(settings).to(device)
    return cast(PreTrainedModel, model)


def _load_causal(
    checkpoint: Checkpoint, config: Mapping[str, Any], dtype: torch.dtype, device: torch.device, attention: str
) -> PreTrainedModel:
    for _ in checkpoints.tensors(checkpoint):  # a damaged shard is named here, before transformers stumbles on it
        pass
    if (generation := checkpoint.folder / "generation_config.json").is_file():
        checkpoints.read_json(generation)  # which transformers, if it cannot read it, goes on without
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(checkpoint.folder),
            config=_settings(config),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
            attn_implementation=attention,
            device_map=None if device.type == "cpu" else {"": str(device)},
            output_loading_info=True,
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # each model, and each quantiser, fails in its own way
        raise WrongArchitecture(f"{checkpoint.folder} cannot be loaded by transformers: {_reason(error)}") from error
    model, report = cast(tuple[PreTrainedModel, Mapping[str, Any]], loaded)
    missing, foreign = report["missing_keys"], report["unexpected_keys"]
    if missing and foreign:
        raise WrongArchitecture(
            f"{checkpoint.folder}: config.json describes another model than the weights, which hold "
            f"{checkpoints.listed(foreign)} and lack {checkpoints.listed(missing)}"
        )
    if missing:
        raise WeightsMissing(f"{checkpoint.folder} lacks {checkpoints.listed(missing)}; fetch the folder again")
    for name, value in model.named_parameters():
        checkpoints.check_finite(name, value, checkpoint.folder)
    return model


def _on_meta(cls: Any, settings: Any) -> Any:
    """The model without memory for its weights. Raises WrongArchitecture if the sizes make no model."""
    try:
        with torch.device("meta"):
            return cls(settings)
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        raise WrongArchitecture(f"config.json describes no model that can be built: {_reason(error)}") from error


def _assign(
    model: nn.Module,
    named: Named,
    dtype: torch.dtype,
    device: torch.device,
    checkpoint: Checkpoint,
    optional: Iterable[str] = (),
) -> None:
    """Put every tensor in its place, in the dtype and on the device asked for.

    Raises WrongArchitecture for a tensor that has no place or another shape, WeightsMissing for a place without one,
    CorruptShard for numbers that are none.
    """
    expected = {name: tuple(value.shape) for name, value in model.named_parameters()}
    seen = set()
    for name, tensor, file in named:
        if name not in expected:
            raise WrongArchitecture(f"{file}: {name} is no part of this model as config.json describes it")
        if tuple(tensor.shape) != expected[name]:
            raise WrongArchitecture(f"{file}: {name} is {tuple(tensor.shape)}, config.json makes it {expected[name]}")
        if not tensor.is_floating_point():
            raise WrongArchitecture(f"{file}: {name} holds {tensor.dtype}, a form of weights that is not read here")
        value = tensor.to(device=device, dtype=dtype, copy=True)  # a copy, so that the file can be closed
        checkpoints.check_finite(name, value, file)
        module, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(module), leaf, nn.Parameter(value))
        seen.add(name)
    if absent := set(expected) - seen - set(optional):
        raise WeightsMissing(
            f"{checkpoint.folder} lacks {checkpoints.listed(absent)}; the files and config.json differ"
        )


def _dequantised(named: Named, shapes: Mapping[str, tuple[int, ...]], notes: list[str]) -> Named:
    """The official int8 and int4 files as plain weights: integers times the scale of their row.

    Four-bit rows hold two columns to a byte, the even one in the upper half. Source: the published quantisation code.
    """
    found_bits: set[int] = set()
    codes: dict[str, Tensor] = {}
    scales: dict[str, Tensor] = {}
    for name, tensor, file in named:
        base = name.removesuffix("_scale")
        if name.endswith(".weight_scale"):
            scales[base] = tensor.float()
        elif tensor.dtype == torch.int8:
            codes[base] = tensor.clone()
        else:
            yield name, tensor, file
            continue
        if base in codes and base in scales:
            integers, scale, n_columns = codes.pop(base), scales.pop(base), shapes.get(base, (0, 0))[-1]
            if integers.ndim != 2 or scale.shape != integers.shape[:1]:
                raise WrongArchitecture(
                    f"{file}: {base} is {tuple(integers.shape)} with a scale of {tuple(scale.shape)}; "
                    "there must be one for each row"
                )
            bits = 4 if 2 * integers.shape[-1] == n_columns else 8
            if bits not in found_bits:
                notes.append(f"int{bits} weights, dequantised on loading")
                found_bits.add(bits)
            yield base, _unpacked(integers, bits) * scale[:, None], file
    if half := codes.keys() | scales.keys():
        raise WeightsMissing(f"int8 or int4 weights without their scales, or the reverse: {checkpoints.listed(half)}")


def _unpacked(integers: Tensor, bits: int) -> Tensor:
    if bits == 8:
        return integers.float()
    lower = integers << 4 >> 4  # the sign travels with the shift
    return torch.stack([integers >> 4, lower], dim=-1).flatten(-2).float()


def _find_adapter(adapter: Path) -> Checkpoint:
    if not (_folder(adapter) / "adapter_config.json").is_file():
        raise AdapterMismatch(f"{adapter} has no adapter_config.json; give the folder that peft saved")
    return checkpoints.find_weights(adapter, stems=ADAPTER_STEMS)


def _merge_adapter(model: PreTrainedModel, checkpoint: Checkpoint, family: Family, notes: list[str]) -> PreTrainedModel:
    """The model with a LoRA adapter added into its weights.

    Another base of the same shape cannot be told from the right one, so what the adapter says of it is noted.

    Raises AdapterMismatch if the adapter is of another kind, or its modules or shapes are not the model's.
    """
    folder = checkpoint.folder
    settings = checkpoints.read_json(folder / "adapter_config.json")
    if settings.get("peft_type") != "LORA":
        raise AdapterMismatch(f"{folder} is a {settings.get('peft_type')} adapter; only LORA is supported")
    if base := settings.get("base_model_name_or_path"):
        notes.append(f"the adapter says that it was trained on {base}")
    held = {}
    for name, tensor, file in checkpoints.tensors(checkpoint):
        checkpoints.check_finite(name, tensor, file)
        held[name] = tensor.clone()
    try:
        lora = LoraConfig.from_pretrained(str(folder))
        lora.init_lora_weights = False  # its values come from the file
        lora.base_model_name_or_path = model.name_or_path or None  # where it was trained is no path of ours
        if family == "chatglm2":
            glm = cast(Any, model.config)
            lora.target_modules = glm2.renamed_targets(lora.target_modules)
            held = dict(new for name, value in held.items() for new in glm2.renamed_lora(name, value, glm))
        adapted = get_peft_model(model, lora)
        report: Any = set_peft_model_state_dict(adapted, held)
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise AdapterMismatch(f"{folder} does not fit this model: {_reason(error)}") from error
    lacking = [name for name in report.missing_keys if "lora_" in name]
    if lacking or report.unexpected_keys:
        raise AdapterMismatch(
            f"{folder} does not fit this model: {checkpoints.listed([*report.unexpected_keys, *lacking])}"
        )
    return cast(PreTrainedModel, adapted.merge_and_unload())


def _tokenizer(folder: Path, family: Family, config: Mapping[str, Any]) -> Tokenizer:
    if family == "chatglm":
        return _chatglm_tokenizer(folder, config)
    if family == "chatglm2":
        return glm2.ChatGLM2Tokenizer(folder / "tokenizer.model")
    if not any((folder / name).is_file() for name in VOCABULARY_FILES):
        raise TokenizerMissing(f"{folder} has no tokenizer; looked for {', '.join(VOCABULARY_FILES)}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, padding_side="left"
        )
    except Exception as error:  # its libraries raise what they like
        raise TokenizerMissing(f"{folder} has no tokenizer that can be read: {_reason(error)}") from error
    if not tokenizer.chat_template:
        raise TokenizerMissing(f"{folder} has no chat template; use a chat model, not a base model")
    try:
        said = chat_text(tokenizer, [{"role": "user", "content": SIMPLEST}])
        is_whole = SIMPLEST in said and SIMPLEST in tokenizer.decode(tokenizer.encode(said))
    except Exception as error:  # the template is the checkpoint's own program and raises what it likes
        raise TokenizerMissing(f"{folder}: its chat template fails on one plain message: {_reason(error)}") from error
    if not is_whole:
        raise TokenizerMissing(f"{folder}: of a plain message, chat template and tokenizer leave no trace")
    return cast(Tokenizer, tokenizer)


def chat_text(tokenizer: Any, messages: list[Message]) -> str:
    """The prompt that the tokenizer's own chat template makes of the messages; it may raise anything.

    A template that asks for today is told one day for good: a response must not depend on when it is written.
    """
    template = tokenizer.get_chat_template()
    if forms := set(ASKS_FOR_TODAY.findall(template)):
        days = json.dumps({form: TODAY.strftime(form) for form in forms})
        told = f'{{{{ {days}.get(form, "{TODAY}") }}}}'
        template = f"{{%- macro strftime_now(form) -%}}{told}{{%- endmacro %}}{template}"
    return str(
        tokenizer.apply_chat_template(messages, chat_template=template, add_generation_prompt=True, tokenize=False)
    )


def _chatglm_tokenizer(folder: Path, config: Mapping[str, Any]) -> ChatGLMTokenizer:
    """Its ids moved to where the config has them: 20,000 further in the vocabulary of 150,528."""
    bare = ChatGLMTokenizer(folder / "ice_text.model")
    settings = published_config(config)
    shift = int(settings.bos_token_id or 0) - bare.bos_token_id
    tokenizer = ChatGLMTokenizer(folder / "ice_text.model", n_image_tokens=max(shift, 0))
    named = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    named |= {"gmask_token_id": tokenizer.gmask_token_id, "mask_token_id": tokenizer.mask_token_id}
    for key, value in named.items():
        if getattr(settings, key) != value:
            raise WrongArchitecture(
                f"{folder}: config.json has {key} {getattr(settings, key)}, ice_text.model {value}; "
                "they belong to different models"
            )
    return tokenizer


def _check_vocabulary(folder: Path, tokenizer: Tokenizer, model: PreTrainedModel) -> None:
    """Raises TokenizerMissing if the tokenizer has words for which the model has no embedding."""
    words: Any = tokenizer
    n_words = max(words.get_vocab().values()) + 1 if hasattr(words, "get_vocab") else int(words.vocab_size)
    n_rows = len(cast(Any, model.get_input_embeddings()).weight)
    if n_words > n_rows:
        raise TokenizerMissing(
            f"{folder}: the tokenizer has {n_words} words, the weights {n_rows}; they belong to different models"
        )


def _stop_ids(folder: Path, model: PreTrainedModel, tokenizer: Tokenizer) -> frozenset[int]:
    stops: set[int] = set()
    generation = model.generation_config if isinstance(model.generation_config, GenerationConfig) else None
    for value in (getattr(generation, "eos_token_id", None), getattr(tokenizer, "eos_token_id", None)):
        several = value if isinstance(value, list | tuple) else [] if value is None else [value]
        if not all(type(one) is int for one in several):
            raise TokenizerMissing(f"{folder}: the tokens that end a response (eos_token_id) are {value!r}, no numbers")
        stops |= set(several)
    if not stops:
        raise TokenizerMissing(f"{folder} names no token that ends a response (eos_token_id)")
    return frozenset(stops)


def _pad_id(tokenizer: Tokenizer, model: PreTrainedModel) -> int:
    """The filler of a padded row, which the mask hides; models without one are filled with their end token."""
    for value in (getattr(tokenizer, "pad_token_id", None), getattr(tokenizer, "eos_token_id", None)):
        if value is not None:
            return int(value)
    return 0


def _is_chatglm3(config: Mapping[str, Any], folder: Path) -> bool:
    """By what differs on disk: its own name, or the roles that it added to the tokenizer's settings."""
    settings = folder / "tokenizer_config.json"
    try:
        roles = "<|user|>" in settings.read_text(encoding="utf-8")
    except (OSError, ValueError):
        roles = False
    return roles or "chatglm3" in json.dumps(config).lower()


def _reason(error: Exception) -> str:
    """What a library had to say, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise WeightsMissing(f"{path} is no folder; give the one that holds the model's files")
    return path


def _device(device: str | torch.device) -> torch.device:
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise DeviceUnavailable(f"{device!r} is no device; use cpu, cuda or cuda:0") from error
    if wanted.type == "cuda" and (not torch.cuda.is_available() or (wanted.index or 0) >= torch.cuda.device_count()):
        raise DeviceUnavailable(f"{wanted} is not here: {torch.cuda.device_count()} CUDA devices; use --device cpu")
    return wanted
