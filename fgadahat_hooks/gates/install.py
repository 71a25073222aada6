"""Put gates on a model, and install them at the sites that the unit graph names."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from fgadahat_hooks.errors import AlreadyAttachedError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.gain_site import install_gains
from fgadahat_hooks.gates.gate import Gate, GateContext
from fgadahat_hooks.gates.sites import JointGate, install_fold, install_norm, install_output
from fgadahat_hooks.graph.gateable import gateable_layers
from fgadahat_hooks.graph.policy import is_norm
from fgadahat_hooks.graph.tracing.custom_forwards import has_own_forward
from fgadahat_hooks.graph.unit_graph import GATE, UnitGraph
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.layers import layer_type_of
from fgadahat_hooks.spec.attach_spec import AttachSpec


def refuse_gated(model: nn.Module) -> None:
    """Check that a model has no gates.

    Raises:
        AlreadyAttachedError: It has.
    """
    gated = [name for name, module in model.named_modules() if isinstance(module, Gate)]
    if gated:
        raise AlreadyAttachedError(
            f"The model carries gates already ({len(gated)}, first '{gated[0]}'). Call `session.detach()` on its "
            "session before attaching again; a copy of an attached model cannot be attached either."
        )


def add_gates(model: nn.Module, spec: AttachSpec, names: Iterable[str], hooks: HookSet) -> AttachedModel:
    """Give each named layer a gate as a child module; it does nothing yet.

    Args:
        model: The user's model.
        spec: The checked spec.
        names: Names of the layers.
        hooks: Records each change, so that it can be undone.
    """
    context = GateContext(spec.gates.s_max, spec.gates.clamp_threshold, spec.gates.choose == "learn")
    with_gains = spec.gates.gains == "without_norms" and not any(map(is_norm, model.modules()))
    layers = gateable_layers(model)
    gates = {}
    for name in names:
        module, kind = layers[name]
        gates[name] = Gate(name, module.get_parameter("weight"), kind.units(module), kind.unit_axis, context)
        gates[name].train(module.training)
        if with_gains and "bias" in module._parameters:
            gates[name].add_gains()
        hooks.child(module, GATE, gates[name])
    return AttachedModel(model, spec, gates, context, hooks)


def activate_gates(attached: AttachedModel, graph: UnitGraph) -> None:
    """Install the hooks of all gates at the sites in the graph; drop the gates of layers that are not in it."""
    model, hooks = attached.model, attached.hooks
    for name in [n for n in attached.gates if n not in graph.layers]:
        attached.gates.pop(name)
        model.get_submodule(name)._modules.pop(GATE, None)
    _install_outputs_and_norms(attached, graph)
    for site, folds in _folds(attached, graph).items():
        install_fold(hooks, model.get_submodule(site), folds)
    gates = [attached.gates[name] for name in graph.layers]
    for name, channels in graph.regates.items():
        install_norm(hooks, model.get_submodule(name), JointGate(gates, channels))
    sites = [*(name for layer in graph.layers.values() for name in layer.sites), *graph.regates]
    attached.gated_modules = {name: model.get_submodule(name) for name in [*graph.layers, *sites]}
    attached.gates = {name: attached.gates[name] for name in graph.layers}
    attached.gate_context.gates = list(attached.gates.values())


def _install_outputs_and_norms(attached: AttachedModel, graph: UnitGraph) -> None:
    for name, layer in graph.layers.items():
        for module in map(attached.model.get_submodule, layer.sites):
            if layer.position == "output":
                install_output(attached.hooks, module)
                _install_gains(attached, module, attached.gates[name])
                continue
            attached.gates[name].drop_gains()  # there is no output to act on
            if layer.position == "after_norm":
                install_norm(attached.hooks, module, attached.gates[name])


def _install_gains(attached: AttachedModel, layer: nn.Module, gate: Gate) -> None:
    kind = layer_type_of(layer)
    if gate.gain is None or kind is None or layer._parameters.get("weight") is None:
        return
    if not has_own_forward(layer, kind.own_class(layer)):  # else its output is more than its weight's
        install_gains(attached.hooks, layer, gate, kind)


def _folds(attached: AttachedModel, graph: UnitGraph) -> dict[str, list[tuple[nn.Module, Gate]]]:
    """Return the layers whose weight rows are gated, with their gates, by the module in whose forward that happens."""
    folds: dict[str, list[tuple[nn.Module, Gate]]] = {}
    for name, layer in graph.layers.items():
        for site in layer.sites if layer.position == "weight" else ():
            folds.setdefault(site, []).append((attached.model.get_submodule(name), attached.gates[name]))
    return folds
