"""The base model made ready to train: loaded, with adapters if asked for, packed, and spread over the devices.

One device or many take the same path, FSDP2 (`fully_shard`): weights that train are kept in float32, each device a part
of them; a block's are brought together in the precision of the run when it is its turn. Frozen weights are kept in that
precision. So a device alone needs no second way, and a checkpoint of eight devices loads on two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from models_runtime.engine import checkpoints as weight_files
from models_runtime.engine.chatglm.configuration import is_chatglm, is_chatglm2
from models_runtime.engine.loading import load
from models_runtime.engine.spec import Family
from training.finetune.config import FinetuneConfig, Precision
from training.finetune.errors import BadModel, TargetMissing
from training.finetune.packing import Kernel as AttentionKernel
from training.finetune.packing import is_prefix_model, pick_kernel, use_packed_attention

DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
PEER_TIMEOUT = timedelta(minutes=30)  # a checkpoint to a slow disk is waited for


@dataclass
class Trainee:
    """A model in training.

    model: sharded; with peft's wrapper around it if it has adapters.  base_digest: of the folder it came from.
    """

    model: Any
    family: Family
    base: Path
    base_digest: str
    kernel_name: str
    kernel: AttentionKernel
    device: torch.device
    dtype: torch.dtype
    is_prefix_model: bool
    notes: tuple[str, ...]

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The weights that change, each once, under the model's own names."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """The processes of this run: those that torchrun started, else this one alone."""
    if dist.is_initialized():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if dist.is_torchelastic_launched():
        dist.init_process_group(backend, timeout=PEER_TIMEOUT)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        dist.destroy_process_group()


def load_trainee(base: Path, config: FinetuneConfig, device: torch.device, digest_cache: Path | None = None) -> Trainee:
    """Raises BadModel or TargetMissing, or what models_runtime.engine.loading raises."""
    compute = DTYPES[config.precision]
    if config.method == "lora" and is_chatglm2(weight_files.read_json(base / "config.json")):
        raise BadModel("ChatGLM2-6B keeps in one layer what adapters would keep in three; use method = full")
    # Every process holds the model once in the machine's memory, in half precision where the files have no more to say.
    loaded = load(base, dtype=_stored_dtype(base), digest_cache=digest_cache)
    model: Any = loaded.model
    use_packed_attention(model)
    head_dim = getattr(model.config, "head_dim", None) or model.config.hidden_size // model.config.num_attention_heads
    name, kernel, notes = pick_kernel(device, compute, head_dim)
    prefix = is_prefix_model(model)
    if config.method == "lora":
        model = _with_adapters(model, config)
    if config.recompute:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    shard(model, init_device_mesh(device.type, (dist.get_world_size(),)), device, compute)
    return Trainee(
        model=model,
        family=loaded.family,
        base=base,
        base_digest=loaded.weights_digest,
        kernel_name=name,
        kernel=kernel,
        device=device,
        dtype=compute,
        is_prefix_model=prefix,
        notes=(*loaded.notes, *notes),
    )


def shard(model: nn.Module, mesh: DeviceMesh, device: torch.device, compute: torch.dtype) -> None:
    """Spread the model over the mesh, block by block; the output layer stays with the embeddings it may be tied to."""
    policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not blocks:
        raise BadModel(f"{type(model).__name__} has no blocks that transformers knows as such, and cannot be spread")
    for module in (*blocks, model):
        for value in module.parameters():
            if not isinstance(value, DTensor):
                value.data = value.data.to(device, torch.float32 if value.requires_grad else compute)
        # Gathered weights are kept from forward to backward: time matters more than memory at these sizes.
        sharded: FSDPModule = fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
        sharded.set_gradient_divide_factor(1.0)  # a sum: the weights of the labels make the mean. Of this module alone.
        sharded.set_force_sum_reduction_for_comms(True)  # gloo knows no other


@contextmanager
def looking_on(model: nn.Module) -> Iterator[None]:
    """Forward passes without a way back, as in an evaluation."""
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train()
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # which the way back does otherwise; until then the weights are not the trained ones


def agreed_sums(values: list[float], device: torch.device) -> list[float]:
    """The sums of these numbers over all processes, the same everywhere."""
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return [float(value) for value in total.tolist()]


def whole(value: Tensor) -> Tensor:
    """A spread tensor brought together; all processes must ask for it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _with_adapters(model: Any, config: FinetuneConfig) -> Any:
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if missing := [target for target in config.lora_targets if target not in linear]:
        raise TargetMissing(
            f"{type(model).__name__} has no linear layer {', '.join(missing)}; it has {', '.join(sorted(linear))}"
        )
    torch.manual_seed(config.seed)
    return get_peft_model(
        model,
        LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            target_modules=list(config.lora_targets),
            lora_dropout=0.0,
            bias="none",
            task_type="CAUSAL_LM",
        ),
    )


def _stored_dtype(base: Path) -> torch.dtype:
    """float16 or bfloat16 where all weights are stored so, else float32."""
    config = weight_files.read_json(base / "config.json")
    found = weight_files.find_weights(base, only_safetensors=not is_chatglm(config) and not is_chatglm2(config))
    dtypes = {tensor.dtype for _, tensor, _ in weight_files.tensors(found) if tensor.is_floating_point()}
    return dtypes.pop() if len(dtypes) == 1 and dtypes <= {torch.float16, torch.bfloat16} else torch.float32
