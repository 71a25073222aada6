"""Wrong calls before there is a session, and the message of each."""

from __future__ import annotations

import copy

import torch

import fgadahat_hooks as fh
from fgadahat_hooks import errors
from tests.support.call_world import CallCase, Named, Net, Unfinished, X, raising, untraced, wrong

ATTACH: list[CallCase] = [
    CallCase(
        "attach_no_module",
        "plain",
        lambda w: fh.attach(wrong([w.model]), {}, X),
        errors.BadCallError,
        "Expected `model` to be a torch.nn.Module, but got list.",
    ),
    CallCase(
        "attach_class",
        "plain",
        lambda w: fh.attach(wrong(Net), {}, X),
        errors.BadCallError,
        "Expected `model` to be a torch.nn.Module, but got the class Net.",
    ),
    CallCase(
        "attach_twice",
        "attached",
        lambda w: fh.attach(w.model, {}, X),
        errors.AlreadyAttachedError,
        (
            "The model carries gates already (1, first '0.hat_gate'). Call `session.detach()` on its session before"
            " attaching again; a copy of an attached model cannot be attached either."
        ),
    ),
    CallCase(
        "attach_a_copy",
        "learnt",
        lambda w: fh.attach(copy.deepcopy(w.model), {}, X),
        errors.AlreadyAttachedError,
        (
            "The model carries gates already (1, first '0.hat_gate'). Call `session.detach()` on its session before"
            " attaching again; a copy of an attached model cannot be attached either."
        ),
    ),
    CallCase(
        "spec_is_a_path",
        "plain",
        lambda w: fh.attach(w.model, "spec.yaml", torch.ones(2, 4)),
        errors.SpecError,
        (
            "The spec has 1 problem:\n"
            "  expected a mapping or AttachSpec, got 'spec.yaml'. Read a file with fgadahat_hooks.load_spec "
            "first."
        ),
    ),
    CallCase(
        "callbacks_are_classes",
        "plain",
        lambda w: fh.attach(w.model, {}, torch.ones(2, 4), [wrong(fh.SummationCallback)]),
        errors.BadCallError,
        (
            "Expected every callback to be an instance of fgadahat_hooks.Callback, but got the class "
            "SummationCallback. Pass instances, not classes."
        ),
    ),
    CallCase(
        "callback_is_a_function",
        "plain",
        lambda w: fh.attach(w.model, {}, torch.ones(2, 4), [fh.Callback(), wrong(print)]),
        errors.BadCallError,
        (
            "Expected every callback to be an instance of fgadahat_hooks.Callback, but got "
            "builtin_function_or_method. Pass instances, not classes."
        ),
    ),
    CallCase(
        "two_callbacks_of_one_key",
        "plain",
        lambda w: fh.attach(w.model, {}, torch.ones(2, 4), [fh.SummationCallback(), fh.SummationCallback()]),
        errors.DuplicateNameError,
        (
            "Expected every callback to have its own key, but ['summation'] came more than once. Pass each "
            "callback once, or give a subclass another `key`."
        ),
    ),
    CallCase(
        "no_such_target",
        "plain",
        lambda w: fh.attach(w.model, {"gates": {"targets": "bdy.0"}}, torch.ones(2, 4)),
        errors.NoMatchError,
        (
            "gates.targets: expected the name of a module, got 'bdy.0'. Did you mean 'body.0'? A pattern is an "
            "exact dotted name ('layer1.0.conv1'), a glob ('layer3.*.conv?'; * and ? stay within one dotted part,"
            " ** crosses parts), 're:' and a regular expression that fits the whole name, or a shorthand (all, "
            "all-linear, all-conv, all-embedding)."
        ),
    ),
    CallCase(
        "target_is_a_norm",
        "plain",
        lambda w: fh.attach(w.model, {"gates": {"targets": "body.1"}}, torch.ones(2, 4)),
        errors.UnsupportedLayerError,
        (
            "gates.targets: expected a layer that can be gated, but 'body.1' is a BatchNorm1d. Layers that can be"
            " gated: 'body.0'."
        ),
    ),
    CallCase(
        "layer_is_never_reached",
        "plain",
        lambda w: fh.attach(w.model, {"gates": {"targets": ["body.0", "spare"]}}, torch.ones(2, 4)),
        errors.UnreachedLayerError,
        (
            "The forward never used 'spare' on the example inputs, in evaluation or training mode, in a way that a "
            "gate could act on. Add it to gates.exclude, or pass example_inputs that reach it."
        ),
    ),
    CallCase(
        "no_such_head",
        "plain",
        lambda w: fh.attach(w.model, {"heads": {"names": "haed"}}, torch.ones(2, 4)),
        errors.NoMatchError,
        (
            "heads.names: expected the name of a module of the model, but got 'haed'. Did you mean 'head'? Give "
            "the layer (or module) that puts out the logits, or leave heads.names out to have it found."
        ),
    ),
    CallCase(
        "forward_raises",
        "plain",
        lambda w: fh.attach(w.model, {}, (X, X)),
        errors.TraceError,
        (
            "The forward of Net raised TypeError on the example inputs (a tuple of 2): Net.forward() takes 2 "
            "positional arguments but 3 were given. Pass example_inputs that the model accepts: a tensor, a tuple"
            " of positional arguments, a dict of keyword arguments, or a function that calls the model."
        ),
    ),
    CallCase(
        "function_of_inputs_raises",
        "plain",
        lambda w: fh.attach(w.model, {}, raising),
        errors.TraceError,
        (
            "The forward of Net raised KeyError on the example inputs (a function): 'pixels'. Pass example_inputs"
            " that the model accepts: a tensor, a tuple of positional arguments, a dict of keyword arguments, or "
            "a function that calls the model."
        ),
    ),
    CallCase(
        "plan_of_an_attached_model",
        "attached",
        lambda w: fh.plan(w.model, {}, X),
        errors.AlreadyAttachedError,
        "The model is attached already; its plan is `session.plan`.",
    ),
    CallCase(
        "plan_without_inputs",
        "plain",
        lambda w: fh.plan(w.model, {"gates": {"exclude": "spare"}}),
        errors.BadCallError,
        (
            "Expected `example_inputs`: a plan is made by tracing one forward. Pass a tensor, a tuple of positional "
            "arguments, a dict of keyword arguments, or a function that calls the model."
        ),
    ),
    CallCase(
        "graph_before_the_first_batch",
        "plain",
        lambda w: untraced().graph,
        errors.NoTaskError,
        (
            "The model has not been traced yet: it will be on its first batch. Pass example_inputs to attach to "
            "trace at once."
        ),
    ),
    CallCase(
        "measure_is_no_measure",
        "plain",
        lambda w: fh.register_measure("mine")(wrong(dict)),
        errors.BadCallError,
        "Expected measure 'mine' to be a subclass of `Measure`, but got <class 'dict'>.",
    ),
    CallCase(
        "measure_is_a_function",
        "plain",
        lambda w: fh.register_measure("mine")(wrong(print)),
        errors.BadCallError,
        "Expected measure 'mine' to be a subclass of `Measure`, but got <built-in function print>.",
    ),
    CallCase(
        "measure_without_compute",
        "plain",
        lambda w: fh.register_measure("mine")(Unfinished),
        errors.BadCallError,
        "Expected measure 'mine' to define compute, but Unfinished does not.",
    ),
    CallCase(
        "measure_of_a_name_that_is_taken",
        "plain",
        lambda w: fh.register_measure("activation_abs")(Named),
        errors.DuplicateNameError,
        (
            "Expected a new name for a measure, got 'activation_abs', which is taken by <class "
            "'fgadahat_hooks.importance.activation.ActivationAbs'>. Choose another name, or pass force=True to "
            "replace that one."
        ),
    ),
]
