"""Digests of what finished tasks read and of what they give."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fgadahat_hooks.gates.task_state import TaskId, TaskRecord
from fgadahat_hooks.tasks.call_arguments import from_plain, map_tensors
from fgadahat_hooks.tasks.certificate import ReadEntries
from fgadahat_hooks.tasks.sequence import TaskSequence
from fgadahat_hooks.verify.reads import entries_of
from fgadahat_hooks.verify.scratch import task_logits


def digest(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's type, shape and bytes."""
    plain = tensor.detach().cpu().contiguous()
    found = hashlib.sha256(f"{plain.dtype} {tuple(plain.shape)}".encode())
    found.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return found.hexdigest()


# ------------------------------------------------------------------ outputs
def environment(model: nn.Module) -> dict[str, str]:
    """Return what the bits of a model's outputs depend on beside its values and inputs."""
    devices = sorted({_device_name(p.device) for p in model.parameters()})
    return {
        "device": ", ".join(devices),
        "dtype": ", ".join(sorted({str(p.dtype) for p in model.parameters()})),
        "torch": str(torch.__version__),
        "kernels": torch.backends.cpu.get_cpu_capability() if devices == ["cpu"] else _gpu_libraries(),
        "float32 products": torch.get_float32_matmul_precision(),
        "threads": str(torch.get_num_threads()),
        "machine": platform.machine(),
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _gpu_libraries() -> str:
    return f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"


def canary_outputs(sequence: TaskSequence, inputs: Any, task: TaskId) -> list[Tensor]:
    """Return the outputs of a finished task on canary inputs, which are moved to the model's device.

    Autocast is off, wherever this is called, and random numbers do not depend on the other tasks.

    Args:
        sequence: The attached model and its tasks.
        inputs: The inputs as plain data.
        task: The task.

    Raises:
        TraceError: The forward raised.
        ValueError: A class of the inputs is not there; the message is its name.
    """
    device = next((p.device for p in sequence.attached.model.parameters()), torch.device("cpu"))
    moved = map_tensors(lambda tensor: tensor.to(device), from_plain(inputs))
    with torch.autocast(device.type, enabled=False):
        return task_logits(sequence, moved, tasks=[task])[task]


def output_digests(tensors: list[Tensor]) -> Mapping[str, str]:
    """Return the digests of a task's outputs, by place, type and shape."""
    return {f"output {n}, {t.dtype}, {tuple(t.shape)}": digest(t) for n, t in enumerate(tensors, 1)}


# ------------------------------------------------------------------ tensors
def tensor_digests(
    sequence: TaskSequence, record: TaskRecord, reads: Mapping[str, ReadEntries]
) -> Iterator[tuple[str, str]]:
    """Yield the digests of what one task alone reads, by kind and name.

    Args:
        sequence: The attached model and its tasks.
        record: What the task has left.
        reads: Which entries of gated weights it reads, by layer.
    """
    for name, entries in entries_of(sequence.attached, reads):
        yield f"entries of {name}", digest(entries)
    yield from ((f"the task's own {name}", digest(tensor)) for name, tensor in record.tensors.items())
    yield from ((f"mask of {name}", digest(mask)) for name, mask in record.masks.items())


def common_digests(sequence: TaskSequence) -> Iterator[tuple[str, str]]:
    """Yield the digests of what all tasks read: frozen tensors, and those that the spec lets every task train."""
    attached = sequence.attached
    for policy in attached.policies:
        if policy.protection in ("frozen", "shared"):
            yield f"{policy.protection} {policy.name}", digest(attached.tensors.tensor(policy.name))
