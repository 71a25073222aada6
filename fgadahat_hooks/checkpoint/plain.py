"""Nested values as JSON and named tensors, and back: with the same types, bits and shared tensors.

JSON has no tuples, no keys other than strings, no infinities and no tensors. Such a value becomes an object whose key
`$` names its type. A tensor that occurs several times is stored once; boolean tensors are stored as bits.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fgadahat_hooks.errors import DamagedCheckpointError

TAG = "$"
MAX_DEPTH = 60
"""How deep values may be nested; far below Python's own recursion limit."""
_DTYPES = {
    getattr(torch, name)
    for name in "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 uint16 uint32 uint64 float8_e4m3fn "
    "float8_e5m2".split()
    if hasattr(torch, name)
}
_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


# ------------------------------------------------------------------ writing
class Writer:
    """Turns values into JSON and collects their tensors.

    Attributes:
        tensors: What to store, by key.
        problems: What cannot be stored, each with its place.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.tensors: dict[str, Tensor] = {}
        self.problems: list[str] = []
        self._keys: dict[tuple[Any, ...], str] = {}
        self._keep_alive: list[Tensor] = []  # else another tensor could get the same address, which `_keys` holds
        self._storages: set[int] = set()

    def encode(self, value: Any, where: str, depth: int = 0) -> Any:
        """Return a value as JSON.

        Args:
            value: Tensors, numbers, strings, None, booleans, and lists, tuples and dicts of them.
            where: Its name, under which its tensors are stored.
            depth: How deep it is nested.
        """
        if depth > MAX_DEPTH:
            return self._report(where, f"is nested more than {MAX_DEPTH} deep")
        if isinstance(value, str | bool | int | float | None):
            return _scalar(value)
        if isinstance(value, Tensor):
            return self._tensor(value, where)
        if isinstance(value, Mapping):
            return self._mapping(value, where, depth + 1)
        if isinstance(value, list | tuple):
            return self._sequence(value, where, depth + 1)
        if isinstance(value, np.ndarray | np.generic):
            return self._array(value, where)
        return self._report(where, f"is of type {type(value).__name__}")

    def _report(self, where: str, problem: str) -> None:
        self.problems.append(f"'{where}' {problem}")

    def _sequence(self, value: list[Any] | tuple[Any, ...], where: str, depth: int) -> Any:
        items = [self.encode(item, f"{where}.{n}", depth) for n, item in enumerate(value)]
        return items if isinstance(value, list) else {TAG: "tuple", "items": items}

    def _mapping(self, value: Mapping[Any, Any], where: str, depth: int) -> Any:
        plain = all(type(key) is str for key in value) and TAG not in value
        if plain and not isinstance(value, Counter):
            return {key: self.encode(part, f"{where}.{key}", depth) for key, part in value.items()}
        wrong = [key for key in value if not isinstance(key, str | int | float | None)]
        if wrong:
            return self._report(where, f"has the key {wrong[0]!r}")
        items = [
            [self.encode(key, where, depth), self.encode(part, f"{where}.{key}", depth)] for key, part in value.items()
        ]
        return {TAG: "counter" if isinstance(value, Counter) else "dict", "items": items}

    def _array(self, value: Any, where: str) -> Any:
        try:
            tensor = torch.from_numpy(np.array(value))
        except TypeError:
            return self._report(where, f"is an array of {value.dtype}")
        return {TAG: "array", "of": self._tensor(tensor, where), "scalar": isinstance(value, np.generic)}

    def _tensor(self, tensor: Tensor, where: str) -> Any:
        tensor = tensor.detach()
        if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided or tensor.is_quantized:
            return self._report(where, f"is a {type(tensor).__name__} of layout {tensor.layout}")
        if tensor.is_meta:
            return self._report(where, "is a tensor without values, on the meta device")
        kind = "tensor"
        if tensor.is_complex():
            tensor, kind = torch.view_as_real(tensor.resolve_conj()), "complex"
        if tensor.dtype is torch.bool:
            return {TAG: "bits", "key": self._key(tensor, where), "shape": list(tensor.shape)}
        if tensor.dtype not in _DTYPES:
            return self._report(where, f"is a tensor of {tensor.dtype}")
        return {TAG: kind, "key": self._key(tensor.resolve_neg(), where)}

    def _key(self, tensor: Tensor, where: str) -> str:
        """Return the key of a tensor; tensors that are the same memory have the same key."""
        same = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if same not in self._keys or tensor.numel() == 0:
            key, number = where, 1
            while key in self.tensors:
                key, number = f"{where}#{number}", number + 1
            self._keys[same] = key
            self._keep_alive.append(tensor)
            self.tensors[key] = self._in_own_memory(_bits(tensor) if tensor.dtype is torch.bool else tensor)
        return self._keys[same]

    def _in_own_memory(self, tensor: Tensor) -> Tensor:
        """Return a contiguous tensor on the CPU that shares no memory with another, as safetensors requires."""
        out = tensor.cpu().contiguous()
        storage = out.untyped_storage()
        if storage.data_ptr() in self._storages or storage.nbytes() != out.numel() * out.element_size():
            out = out.clone()
        self._storages.add(out.untyped_storage().data_ptr())
        return out


def _scalar(value: str | bool | int | float | None) -> Any:
    """Return a string, number or None as JSON; an instance of a subclass (an enum) becomes its plain value."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    return float(value) if math.isfinite(value) else {TAG: "float", "value": str(float(value))}


def _bits(tensor: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(tensor.cpu().contiguous().numpy().reshape(-1)))


# ------------------------------------------------------------------ reading
class Reader:
    """Turns JSON and named tensors into values."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Read tensors from a mapping, by key."""
        self._tensors = tensors
        self._decoded: dict[tuple[Any, ...], Tensor] = {}
        self._kinds: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
            "array": self._array,
            "bits": self._bits,
            "complex": lambda part: self._shared(part, "complex", torch.view_as_complex),
            "counter": lambda part: Counter(self._pairs(part)),
            "dict": self._pairs,
            "float": lambda part: _SPECIAL[part["value"]],
            "tensor": lambda part: self._tensors[part["key"]],
            "tuple": lambda part: tuple(self._list(part["items"])),
        }

    def decode(self, value: Any) -> Any:
        """Return the value.

        Raises:
            DamagedCheckpointError: It is not what `Writer.encode` returns, or a tensor is missing.
        """
        try:
            return self._decode(value)
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise DamagedCheckpointError(
                f"Expected values as `session.save` writes them, but some cannot be read ({error!r}). Nothing was "
                "changed. Take another copy of the folder."
            ) from error

    def _decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return self._list(value)
        if not isinstance(value, dict):
            return value
        if TAG in value:
            return self._kinds[value[TAG]](value)
        return {key: self._decode(part) for key, part in value.items()}

    def _list(self, items: Any) -> list[Any]:
        if not isinstance(items, list):
            raise TypeError("expected a list")
        return [self._decode(item) for item in items]

    def _pairs(self, part: Mapping[str, Any]) -> dict[Any, Any]:
        return {self._decode(key): self._decode(item) for key, item in part["items"]}

    def _array(self, part: Mapping[str, Any]) -> Any:
        array = self._decode(part["of"]).numpy()
        return array[()] if part["scalar"] else array

    def _shared(self, part: Mapping[str, Any], kind: str, make: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the tensor decoded from a stored one; all references to it get the same object."""
        same = (kind, part["key"], *part.get("shape", ()))
        if same not in self._decoded:
            self._decoded[same] = make(self._tensors[part["key"]])
        return self._decoded[same]

    def _bits(self, part: Mapping[str, Any]) -> Tensor:
        shape = part["shape"]
        if any(type(size) is not int or size < 0 for size in shape):
            raise ValueError("a shape is not one")
        count = math.prod(shape)

        def unpack(stored: Tensor) -> Tensor:
            if stored.dtype is not torch.uint8 or tuple(stored.shape) != ((count + 7) // 8,):
                raise ValueError("bits and shape do not fit")
            return torch.from_numpy(np.unpackbits(stored.numpy(), count=count).astype(bool)).reshape(shape)

        return self._shared(part, "bits", unpack)
