"""Nested values as JSON and named tensors, and back: the same types, bits and sharing.

JSON has no tuples, no keys but text, no infinities and no tensors. A value that is one of those becomes an object whose
key `$` says what it is. One tensor that comes several times is stored once, and booleans as bits.
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
"""How deep values may be nested; far below what Python's own recursion allows."""
_DTYPES = {
    getattr(torch, name)
    for name in "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 uint16 uint32 uint64 float8_e4m3fn "
    "float8_e5m2".split()
    if hasattr(torch, name)
}
_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


# ------------------------------------------------------------------ there
class Writer:
    """Turns values into JSON and gathers their tensors.

    Attributes:
        tensors: What to store, by key.
        problems: What cannot be stored, each with its place.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.tensors: dict[str, Tensor] = {}
        self.problems: list[str] = []
        self._keys: dict[tuple[Any, ...], str] = {}
        self._kept: list[Tensor] = []  # memory that is let go of would be given to another tensor
        self._storages: set[int] = set()

    def encode(self, value: Any, where: str, depth: int = 0) -> Any:
        """Return a value as JSON.

        Args:
            value: Tensors, numbers, strings, None, booleans, and lists, tuples and dicts of them.
            where: Its name; tensors are stored under it.
            depth: How deep it is in the whole.
        """
        if depth > MAX_DEPTH:
            return self._odd(where, f"is nested more than {MAX_DEPTH} deep")
        if value is None or isinstance(value, str | bool | int):
            return _simple(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {TAG: "float", "value": str(float(value))}
        if isinstance(value, Tensor):
            return self._tensor(value, where)
        if isinstance(value, Mapping):
            return self._mapping(value, where, depth + 1)
        if isinstance(value, list | tuple):
            items = [self.encode(item, f"{where}.{n}", depth + 1) for n, item in enumerate(value)]
            return items if isinstance(value, list) else {TAG: "tuple", "items": items}
        if isinstance(value, np.ndarray | np.generic):
            return self._array(value, where)
        return self._odd(where, f"is of type {type(value).__name__}")

    def _odd(self, where: str, what: str) -> None:
        self.problems.append(f"'{where}' {what}")

    def _mapping(self, value: Mapping[Any, Any], where: str, depth: int) -> Any:
        plain = all(type(key) is str for key in value) and TAG not in value
        if plain and not isinstance(value, Counter):
            return {key: self.encode(part, f"{where}.{key}", depth) for key, part in value.items()}
        wrong = [key for key in value if not isinstance(key, str | int | float | None)]
        if wrong:
            return self._odd(where, f"has the key {wrong[0]!r}")
        items = [
            [self.encode(key, where, depth), self.encode(part, f"{where}.{key}", depth)] for key, part in value.items()
        ]
        return {TAG: "counter" if isinstance(value, Counter) else "dict", "items": items}

    def _array(self, value: Any, where: str) -> Any:
        try:
            tensor = torch.from_numpy(np.array(value))
        except TypeError:
            return self._odd(where, f"is an array of {value.dtype}")
        return {TAG: "array", "of": self._tensor(tensor, where), "scalar": isinstance(value, np.generic)}

    def _tensor(self, tensor: Tensor, where: str) -> Any:
        tensor = tensor.detach()
        if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided or tensor.is_quantized:
            return self._odd(where, f"is a {type(tensor).__name__} of layout {tensor.layout}")
        if tensor.is_meta:
            return self._odd(where, "is a tensor without values, on the meta device")
        kind = "tensor"
        if tensor.is_complex():
            tensor, kind = torch.view_as_real(tensor.resolve_conj()), "complex"
        if tensor.dtype is torch.bool:
            return {TAG: "bits", "key": self._key(tensor, where), "shape": list(tensor.shape)}
        if tensor.dtype not in _DTYPES:
            return self._odd(where, f"is a tensor of {tensor.dtype}")
        return {TAG: kind, "key": self._key(tensor.resolve_neg(), where)}

    def _key(self, tensor: Tensor, where: str) -> str:
        """Return the key of a tensor, the same one for the same values in memory."""
        same = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if same not in self._keys or tensor.numel() == 0:
            key, number = where, 1
            while key in self.tensors:
                key, number = f"{where}#{number}", number + 1
            self._keys[same] = key
            self._kept.append(tensor)
            self.tensors[key] = self._alone(_bits(tensor) if tensor.dtype is torch.bool else tensor)
        return self._keys[same]

    def _alone(self, tensor: Tensor) -> Tensor:
        """Return the values in memory of their own, as the file wants them."""
        out = tensor.cpu().contiguous()
        storage = out.untyped_storage()
        if storage.data_ptr() in self._storages or storage.nbytes() != out.numel() * out.element_size():
            out = out.clone()
        self._storages.add(out.untyped_storage().data_ptr())
        return out


def _simple(value: Any) -> Any:
    """Return text, a number or None as just that: subclasses (enums) lose what is more than that."""
    if value is None or isinstance(value, bool):
        return value
    return str.__str__(value) if isinstance(value, str) else int(value)


def _bits(tensor: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(tensor.cpu().contiguous().numpy().reshape(-1)))


# ------------------------------------------------------------------ and back
class Reader:
    """Turns JSON and named tensors into values."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the tensors by key."""
        self._tensors = tensors
        self._made: dict[tuple[Any, ...], Tensor] = {}
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
            DamagedCheckpointError: It is none that `Writer.encode` makes, or a tensor is missing.
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
        """Return what is made of a stored tensor, one and the same for all that refer to it."""
        same = (kind, part["key"], *part.get("shape", ()))
        if same not in self._made:
            self._made[same] = make(self._tensors[part["key"]])
        return self._made[same]

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
