"""ChatGLM-6B, the prefix language model of March 2023, on transformers as it is now.

Written from the published description and checkpoint layout; modules carry the published names, so that weights and
LoRA adapters load unchanged. What sets the model apart:

- The prompt, up to `<sop>`, sees all of itself; from `<sop>` on, attention is causal.
- A position has two channels. Half of each head is turned by the first (place in the prompt, then fixed at the mask
  token), half by the second (zero in the prompt, then 1, 2, 3 … from `<sop>` on).
- A block adds its sublayer to sqrt(2 * 28) times its *normalised* input.

Shapes: B = rows, T = tokens in this call, K = tokens with those in the cache, N = heads, H = channels of a head,
D = hidden size, V = vocabulary. Positions are (2, B, T), the channel first, which is the axis order that `generate` can
slice and repeat.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, slice_logits_to_keep

from models_runtime.engine.chatglm.configuration import ChatGLMConfig

ROTARY_BASE = 10000.0
CONTEXT, TARGET = 0, -1  # as create_causal_mask counts blocks: 0 sees all of block 0, -1 is causal
Rotation = tuple[Tensor, Tensor]  # cosines and sines, each (B, 1, T, H)


def prompt_positions(input_ids_BT: Tensor, padding_mask_BT: Tensor | None, config: ChatGLMConfig) -> Tensor:
    """Two-channel positions of whole prompts, shape (2, B, T).

    padding_mask_BT: 1 = token, 0 = padding; None = no padding. Padding on the left shifts no position; its own are 0.

    Raises ValueError if a row has no `<sop>`, or neither `[gMASK]` nor `[MASK]`.
    """
    is_token = torch.ones_like(input_ids_BT, dtype=torch.bool) if padding_mask_BT is None else padding_mask_BT.bool()

    def first(token_id: int | None) -> tuple[Tensor, Tensor]:
        """Index of the token's first appearance in each row, (B, 1), and whether there is one."""
        found = (input_ids_BT == token_id) & is_token
        return found.int().argmax(dim=1, keepdim=True), found.any(dim=1, keepdim=True)

    start, has_start = first(config.bos_token_id)
    gmask, has_gmask = first(config.gmask_token_id)
    mask, has_mask = first(config.mask_token_id)
    is_complete = has_start & (has_gmask | has_mask)
    if not is_complete.all():
        row = int((~is_complete).flatten().int().argmax())
        raise ValueError(
            f"row {row} is no ChatGLM-6B prompt: it needs [gMASK] (id {config.gmask_token_id}) and <sop> "
            f"(id {config.bos_token_id}); encode it with special tokens"
        )
    n_padding = is_token.int().argmax(dim=1, keepdim=True)  # on the left
    index = torch.arange(input_ids_BT.shape[1], device=input_ids_BT.device)
    in_context = index < start
    place = torch.where(in_context, index, torch.where(has_gmask, gmask, mask)) - n_padding
    block = torch.where(in_context, 0, index - start + 1)
    return torch.stack([place.clamp(min=0), block])


def next_positions(positions_2BT: Tensor) -> Tensor:
    """Positions of the one token that follows, shape (2, B, 1): the first channel stays, the second counts on."""
    last = positions_2BT[:, :, -1:]
    return last + torch.tensor([0, 1], device=last.device).view(2, 1, 1)


def rotation(positions_2BT: Tensor, head_dim: int, angle_dtype: torch.dtype, dtype: torch.dtype) -> Rotation:
    """Cosines and sines that turn a head: its first half by channel 0, its second by channel 1."""
    half = head_dim // 2
    exponents = torch.arange(0, half, 2, device=positions_2BT.device).float() / half
    # Every published run read the frequencies through float16, so the weights know no others.
    frequencies = (1.0 / ROTARY_BASE**exponents).half().to(angle_dtype)
    angles = positions_2BT[..., None].to(angle_dtype) * frequencies  # (2, B, T, H / 4)
    angles = torch.cat([angles, angles], dim=-1)
    both = torch.cat([angles[0], angles[1]], dim=-1)[:, None]  # (B, 1, T, H)
    return both.cos().to(dtype), both.sin().to(dtype)


def rotate(states_BNTH: Tensor, cos_sin: Rotation) -> Tensor:
    """Turn queries or keys. Within each half of a head, channel i forms a pair with channel i + H / 4."""
    cos, sin = cos_sin
    a, b, c, d = states_BNTH.chunk(4, dim=-1)
    return states_BNTH * cos + torch.cat([-b, a, -d, c], dim=-1) * sin


def eager_attention(
    module: nn.Module,
    query_BNTH: Tensor,
    key_BNKH: Tensor,
    value_BNKH: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Attention in plain steps; returns (B, T, N, H) and the weights. The mask is added to the scores."""
    # Scaled before the product, which could overflow float16 otherwise.
    scores = (query_BNTH * scaling) @ key_BNKH.transpose(-1, -2)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query_BNTH.dtype)
    return (weights @ value_BNKH).transpose(1, 2).contiguous(), weights


class SelfAttention(nn.Module):
    """Multi-head attention; one linear layer makes query, key and value, which lie side by side within each head."""

    is_causal = True  # what an attention implementation takes a missing mask to mean; the mask says the rest
    num_key_value_groups = 1

    def __init__(self, config: ChatGLMConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        if self.head_dim % 4 or self.head_dim * config.num_attention_heads != config.hidden_size:
            raise ValueError(
                f"{config.hidden_size} channels are no {config.num_attention_heads} heads of four quarters"
            )
        self.scaling = self.head_dim**-0.5
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_BTD: Tensor,
        cos_sin: Rotation,
        attention_mask: Tensor | None,
        past_key_values: Cache | None,
        **kwargs: Any,
    ) -> Tensor:
        rows, tokens, _ = hidden_BTD.shape
        heads = self.query_key_value(hidden_BTD).view(rows, tokens, -1, 3 * self.head_dim).transpose(1, 2)
        query, key, value = heads.chunk(3, dim=-1)
        query, key = rotate(query, cos_sin), rotate(key, cos_sin)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attend: Callable[..., tuple[Tensor, Any]] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention
        )
        attended, _ = attend(self, query, key, value, attention_mask, scaling=self.scaling, dropout=0.0, **kwargs)
        return cast(Tensor, self.dense(attended.reshape(rows, tokens, -1)))


class FeedForward(nn.Module):
    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.inner_hidden_size)
        self.dense_4h_to_h = nn.Linear(config.inner_hidden_size, config.hidden_size)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return cast(Tensor, self.dense_4h_to_h(F.gelu(self.dense_h_to_4h(hidden_BTD), approximate="tanh")))


class Block(GradientCheckpointingLayer):
    def __init__(self, config: ChatGLMConfig, layer_idx: int) -> None:
        super().__init__()
        self.alpha = math.sqrt(2 * config.deepnorm_layers)
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.attention = SelfAttention(config, layer_idx)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.mlp = FeedForward(config)

    def forward(
        self,
        hidden_BTD: Tensor,
        cos_sin: Rotation,
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> Tensor:
        normed = self.input_layernorm(hidden_BTD)
        attended = self.attention(normed, cos_sin, attention_mask, past_key_values, **kwargs)
        normed = self.post_attention_layernorm(normed * self.alpha + attended)
        return cast(Tensor, normed * self.alpha + self.mlp(normed))


class ChatGLMPreTrainedModel(PreTrainedModel):
    config: ChatGLMConfig
    config_class = ChatGLMConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    # A table of positions that the published files hold and the published code never read.
    _keys_to_ignore_on_load_unexpected = [r"attention\.rotary_emb\.inv_freq$"]


class ChatGLMModel(ChatGLMPreTrainedModel):
    """Embeddings, blocks and final norm."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([Block(config, i) for i in range(config.num_layers)])
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.gradient_checkpointing = False
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Embedding:
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.word_embeddings = cast(nn.Embedding, value)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Final hidden states (B, T, D).

        attention_mask: (B, K), 1 = token, 0 = padding, to which the prefix mask is added; or a finished mask
            (B, 1, T, K) in the form the attention implementation expects, taken as it is.
        position_ids: (2, B, T); made from input_ids where they are whole prompts. Needed for every later token, and
            with inputs_embeds.
        kwargs: handed to the attention implementation.
        """
        hidden = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            if input_ids is None or _has_tokens(past_key_values):
                raise ValueError("position_ids are needed with inputs_embeds, and for tokens after the prompt")
            padding = attention_mask if attention_mask is not None and attention_mask.ndim == 2 else None
            position_ids = prompt_positions(input_ids, padding, self.config)
        mask = prefix_mask(self.config, hidden, attention_mask, past_key_values, position_ids)
        cos_sin = rotation(position_ids, self.config.head_dim, _angle_dtype(self.config, hidden.dtype), hidden.dtype)
        for block in self.layers:
            hidden = block(hidden, cos_sin, attention_mask=mask, past_key_values=past_key_values, **kwargs)
        return BaseModelOutputWithPast(
            last_hidden_state=self.final_layernorm(hidden), past_key_values=past_key_values if use_cache else None
        )


def prefix_mask(
    config: ChatGLMConfig,
    inputs_embeds: Tensor,
    attention_mask: Tensor | None,
    past_key_values: Cache | None,
    position_ids: Tensor | None,
) -> Any:
    """The mask for the attention implementation in use: the prompt sees all of itself, the rest is causal.

    Which tokens belong to the prompt is read off the positions: their second channel is 0.
    """
    tokens = inputs_embeds.shape[1]
    blocks = None
    if tokens > 1 and position_ids is not None and not _has_tokens(past_key_values):
        blocks = torch.where(position_ids[1] == 0, CONTEXT, TARGET)
    return create_causal_mask(
        config=config,
        inputs_embeds=inputs_embeds,
        attention_mask=attention_mask,
        past_key_values=past_key_values,
        block_sequence_ids=blocks,
    )


def _has_tokens(cache: Cache | None) -> bool:
    return cache is not None and int(cache.get_seq_length()) > 0


def _angle_dtype(config: ChatGLMConfig, dtype: torch.dtype) -> torch.dtype:
    if config.rotary_angles == "as_published":
        # bfloat16 cannot count past 256; the published code breaks there and nobody published such a run.
        return torch.float16 if dtype == torch.float16 else torch.float32
    return torch.float16 if config.rotary_angles == "float16" else torch.float32


class ChatGLMForConditionalGeneration(ChatGLMPreTrainedModel, GenerationMixin):
    """ChatGLM-6B with its output layer, which shares the embeddings' weight."""

    _tied_weights_keys = {"lm_head.weight": "transformer.word_embeddings.weight"}

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        self.transformer = ChatGLMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_output_embeddings(self) -> nn.Linear:
        return cast(nn.Linear, self.lm_head)

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.lm_head = cast(nn.Linear, value)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,  # always a named output; part of the call that peft and generate make
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of the tokens to keep, and the mean loss in nats if there are labels.

        logits_to_keep: 0 = all, n = the last n, or a boolean mask (B, T).
        labels: (B, T); position t is predicted at t - 1, and -100 is left out.
        For the other arguments see ChatGLMModel.
        """
        outputs = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        loss = None
        if labels is not None:
            predicted, expected = logits[:, :-1], labels[:, 1:]
            loss = F.cross_entropy(predicted.flatten(0, 1).float(), expected.flatten(), ignore_index=-100)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=outputs.past_key_values)

    # The three hooks below are where `generate` assumes one channel and a causal prompt.

    def _prepare_position_ids_for_generation(self, inputs_tensor: Tensor, model_kwargs: dict[str, Any]) -> Tensor:
        return prompt_positions(inputs_tensor, model_kwargs.get("attention_mask"), self.config)

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], is_encoder_decoder: bool = False, num_new_tokens: int = 1
    ) -> dict[str, Any]:
        before = model_kwargs.get("position_ids")
        updated: dict[str, Any] = super()._update_model_kwargs_for_generation(
            outputs, model_kwargs, is_encoder_decoder, num_new_tokens
        )
        if before is not None:  # every channel was counted on; the first one stays where it was
            updated["position_ids"][0, :, -num_new_tokens:] = before[0, :, -1:]
        return updated

    @staticmethod
    def create_masks_for_generate(
        config: ChatGLMConfig,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        past_key_values: Cache | None,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        return prefix_mask(config, inputs_embeds, attention_mask, past_key_values, position_ids)
