"""One training forward, kept to be run again."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.tasks.call_arguments import from_plain, map_tensors, tensors_in, to_plain


@dataclass(eq=False)
class RecordedForward:
    """One training forward.

    Attributes:
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        autocast: Name of the autocast dtype on the model's device, None without autocast.
        evaluating: Names of the modules that were in evaluation mode.
        labels: The labels of the loader's batch, None if it holds none.
        logits: The class logits that the model gave, None if it gave none.
        gradient: Gradient of the loss with respect to them, None if there was none.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    autocast: str | None = None
    evaluating: tuple[str, ...] = ()
    labels: Tensor | None = None
    logits: Tensor | None = None
    gradient: Tensor | None = None

    def __post_init__(self) -> None:
        """Note the tensors' versions, and their bytes."""
        self._tensors = tensors_in((self.args, self.kwargs))
        self._versions = [version_of(t) for t in self._tensors]
        self.bytes = sum(t.numel() * t.element_size() for t in self._tensors)

    @property
    def unchanged(self) -> bool:
        """Whether nothing was written into the arguments since."""
        return self._versions == [version_of(t) for t in self._tensors]

    def run(self, model: nn.Module, device: str) -> Any:
        """Run the forward again, under its autocast; return the output."""
        dtype = None if self.autocast is None else getattr(torch, self.autocast)
        args, kwargs = map_tensors(lambda tensor: tensor, (self.args, self.kwargs))  # a forward may empty a dict
        with nullcontext() if dtype is None else torch.autocast(device, dtype):
            return model(*args, **kwargs)

    @property
    def samples(self) -> int:
        """Number of samples with a label."""
        return 0 if self.labels is None else len(self.labels)

    def keep_output(self, logits: Tensor) -> None:
        """Keep the logits, and their gradient once there is one; the hook does not keep the forward alive."""
        self.logits, kept = logits.detach(), weakref.ref(self)

        def keep_gradient(gradient: Tensor) -> None:
            forward = kept()
            if forward is not None:
                forward.gradient = gradient.detach()

        if logits.requires_grad:
            HookSet.gradient(logits, keep_gradient)

    # ---------------------------------------------------------------- in a saved state
    def dump(self) -> dict[str, Any]:
        """Return the forward as plain data.

        Raises:
            ValueError: Its arguments hold something else; the message names its type.
        """
        saved = {"args": to_plain(list(self.args)), "kwargs": to_plain(dict(self.kwargs))}
        optional = {name: getattr(self, name) for name in ("autocast", "labels", "logits", "gradient")}
        optional["evaluating"] = list(self.evaluating) or None
        return {**saved, **{name: value for name, value in optional.items() if value is not None}}

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> RecordedForward:
        """Return the forward that `dump` returned.

        Raises:
            ValueError: A class of its arguments is not there; the message is its name.
        """
        args, kwargs = from_plain(tuple(saved["args"])), from_plain(saved["kwargs"])
        return cls(**{**saved, "args": args, "kwargs": kwargs, "evaluating": tuple(saved.get("evaluating", ()))})


def version_of(tensor: Tensor) -> int:
    """Return how often something was written into a tensor; 0 for tensors of inference mode, which do not count it."""
    return 0 if tensor.is_inference() else tensor._version
