"""Digests of what finished tasks read and of what they give."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fgadahat_hooks.callbacks.protected_entries import protected_entries
from fgadahat_hooks.gates.task_state import TaskId, TaskRecord, TaskState
from fgadahat_hooks.tasks.certificate import TaskCertificate
from fgadahat_hooks.tasks.sequence import TaskSequence
from fgadahat_hooks.verify.scratch import Logits, task_logits


def digest(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's type, shape and bytes."""
    plain = tensor.detach().cpu().contiguous()
    found = hashlib.sha256(f"{plain.dtype} {tuple(plain.shape)}".encode())
    found.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return found.hexdigest()


def environment(model: nn.Module) -> dict[str, str]:
    """Return what the bits of a model's outputs depend on beside its values and inputs."""
    devices = sorted({_device_name(p.device) for p in model.parameters()})
    return {
        "device": ", ".join(devices),
        "torch": str(torch.__version__),
        "kernels": torch.backends.cpu.get_cpu_capability() if devices == ["cpu"] else str(torch.version.cuda),
        "threads": str(torch.get_num_threads()),
        "machine": platform.machine(),
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def canary_outputs(sequence: TaskSequence, inputs: Any) -> Logits:
    """Return the outputs of every finished task on canary inputs, which are moved to the model's device."""
    device = next((p.device for p in sequence.attached.model.parameters()), torch.device("cpu"))
    moved = pytree.tree_map_only(Tensor, lambda t: t.to(device), inputs)
    return task_logits(sequence, moved)


def task_digests(sequence: TaskSequence, outputs: Logits) -> dict[TaskId, TaskCertificate]:
    """Return the digests of all finished tasks, whose outputs these are."""
    frozen = dict(_frozen(sequence))
    return {
        task: TaskCertificate(_of_outputs(outputs[task]), {**dict(_of_task(sequence, task, record)), **frozen})
        for task, record in sequence.state.records.items()
    }


def _of_outputs(tensors: list[Tensor]) -> Mapping[str, str]:
    return {f"output {n}, {t.dtype}, {tuple(t.shape)}": digest(t) for n, t in enumerate(tensors, 1)}


def _of_task(sequence: TaskSequence, task: TaskId, record: TaskRecord) -> Iterator[tuple[str, str]]:
    """Yield the digests of what one task reads, by kind and name."""
    alone = TaskState({task: record}, {}, [])
    for name, gated, protected in protected_entries(sequence.attached.context(None, alone)):
        yield f"entries of {name}", digest(gated.detach()[protected.expand(gated.shape)])
    yield from ((f"the task's own {name}", digest(tensor)) for name, tensor in record.tensors.items())
    yield from ((f"mask of {name}", digest(mask)) for name, mask in record.masks.items())


def _frozen(sequence: TaskSequence) -> Iterator[tuple[str, str]]:
    attached = sequence.attached
    for policy in attached.policies:
        if policy.protection == "frozen":
            yield f"frozen {policy.name}", digest(attached.tensors.tensor(policy.name))
