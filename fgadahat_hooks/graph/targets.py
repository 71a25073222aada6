"""Which layers of a model the spec selects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from fgadahat_hooks.errors import NoMatchError
from fgadahat_hooks.graph.gateable import gateable_layers
from fgadahat_hooks.graph.trace import TraceRequest
from fgadahat_hooks.registry import suggest
from fgadahat_hooks.spec.attach_spec import AttachSpec
from fgadahat_hooks.spec.matching import match


@dataclass(frozen=True)
class Targets:
    """The layers to gate, without the heads that the spec names.

    Attributes:
        names: Their names, in the order of `named_modules`.
        heads: Names of the head modules if the spec gives them, else None.
        explicit: Those of the layers that the spec names in full.
    """

    names: list[str]
    heads: tuple[str, ...] | None
    explicit: frozenset[str] = frozenset()

    def request(self, spec: AttachSpec) -> TraceRequest:
        """Return what to trace for."""
        return TraceRequest(self.names, self.heads, spec.gates.position == "auto", self.explicit)


def find_targets(model: nn.Module, spec: AttachSpec) -> Targets:
    """Match the patterns of the spec with the names of the model's layers.

    Raises:
        MatchError: A pattern matches nothing that can be gated; all problems are reported at once.
    """
    layers = gateable_layers(model)
    supported = {id(module) for module, _ in layers.values()}
    names = match(model, spec.gates.targets, spec.gates.exclude, lambda m: id(m) in supported)
    heads = None if spec.heads.names is None else tuple(_heads(model, spec.heads.names))
    inside = tuple(f"{head}." for head in heads or ())
    explicit = frozenset(names) & frozenset(spec.gates.targets)
    return Targets([n for n in names if n not in (heads or ()) and not n.startswith(inside)], heads, explicit)


def _heads(model: nn.Module, names: tuple[str, ...]) -> Iterator[str]:
    known = dict(model.named_modules())
    for name in names:
        if name not in known or name == "":
            raise NoMatchError(
                f"heads.names: expected the name of a module of the model, but got '{name}'.{suggest(name, known)} "
                "Give the layer (or module) that puts out the logits, or leave heads.names out to have it found."
            )
        yield name
