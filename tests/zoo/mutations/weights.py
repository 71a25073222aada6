"""Rules of weights: which units use them, which units they read, and what protects them."""

from __future__ import annotations

from tests.zoo.mutations.mutation import Mutation

USES = (
    Mutation(
        "weights used functionally are gated by their rows, not by hooks on modules that never run",
        "narrow vit",
        "graph/tracing/build_graph.py",
        "if record.functional_users:",
        "if record.functional_users and record.called:",
    ),
    Mutation(
        "a gate on rows gates the bias too",
        "narrow vit",
        "gates/sites.py",
        'for name in ("weight", "bias"):',
        'for name in ("weight",):',
    ),
    Mutation(
        "a bias added functionally to a product may belong to any layer",
        "odd ForeignBias",
        "graph/tracing/weight_uses.py",
        "if bias is not None:",
        "if False:",
    ),
    Mutation(
        "a bias read outside its layer is gated there",
        "odd BiasElsewhere",
        "graph/tracing/weight_uses.py",
        "self._recorder.record_functional_use(self._recorder.records[name], self._stack[-1])",
        "pass",
    ),
    Mutation(
        "all uses of a weight count, not only the first",
        "odd SliceOfWeight",
        "graph/tracing/recorder.py",
        "record.inputs = labels.clone() if record.inputs is None else self.table.join_tensors(record.inputs, labels)",
        "record.inputs = labels.clone() if record.inputs is None else record.inputs",
    ),
    Mutation(
        "columns of a slice of a weight are numbered as in the whole weight",
        "odd SliceOfWeight",
        "graph/tracing/weight_uses.py",
        "self._recorder.record_inputs(record, labels, features)",
        'self._recorder.record_inputs(record, labels, torch.arange(len(labels), device="cpu"))',
    ),
    Mutation(
        "rows of a slice of a weight are numbered as in the whole weight",
        "odd SliceOfWeight",
        "graph/tracing/weight_uses.py",
        'self._recorder.atoms(record, "raw")[units]',
        'self._recorder.atoms(record, "raw")[: len(units)]',
    ),
    Mutation(
        "a weight with swapped axes feeds other units",
        "odd SwappedKernel",
        "graph/tracing/weight_uses.py",
        "return t.shape == weight.shape and t.stride() == weight.stride() and not t.storage_offset()",
        "return t.shape == weight.shape and not t.storage_offset()",
    ),
    Mutation(
        "a weight that is transformed before its use is used by every unit",
        "odd WeightStandardised",
        "graph/tracing/recorder.py",
        "record.mixed_weight = True\n",
        "record.mixed_weight = False\n",
    ),
    Mutation(
        "a weight used by every unit is protected throughout",
        "odd WeightStandardised",
        "callbacks/prior_use.py",
        "if info.mixed_weight and own.numel():",
        "if False:",
    ),
    Mutation(
        "a layer whose class has a forward of its own may mix its units",
        "odd MixingSubclass",
        "graph/tracing/run.py",
        "custom = record is not None and has_own_forward(module, record.kind.own_class(module))",
        "custom = False",
    ),
    Mutation(
        "a weight that two layers share takes no gate",
        "odd TiedWords",
        "graph/gateable.py",
        "if all(uses[storage_key(p)] == 1 for",
        "if all(uses[storage_key(p)] >= 1 for",
    ),
)
"""How a forward uses weights."""

RATES = (
    Mutation(
        "what is always live counts as always used",
        "odd AwayFromZero",
        "graph/unit_graph.py",
        "return torch.where(live, torch.as_tensor(live_value, dtype=values.dtype, device=device), largest)",
        "return torch.where(live, torch.zeros_like(largest), largest)",
    ),
    Mutation(
        "an input is used if one of its units is",
        "narrow mobilenet_v3",
        "graph/unit_graph.py",
        '.scatter_reduce(0, feature, picked, "amax")',
        '.scatter_reduce(0, feature, picked, "mean", include_self=False)',
    ),
    Mutation(
        "an input that is a product is used if each factor has a used unit",
        "odd PlainScores",
        "graph/unit_graph.py",
        'sets = sets.scatter_reduce(0, feature * width + group, picked, "amax", include_self=False)',
        'sets = sets.scatter_reduce(0, feature * width + group, picked, "amin", include_self=False)',
    ),
    Mutation(
        "inputs of a grouped convolution belong to the outputs of their group",
        "odd ShuffledGroups",
        "layers/conv.py",
        "rows = values.reshape(groups, -1)",
        "rows = values.reshape(-1, groups).t()",
    ),
    Mutation(
        "inputs of a grouped convolution belong to no other group",
        "odd ShuffledGroups",
        "layers/conv.py",
        "rows = rows.repeat_interleave(weight_of(module).shape[0] // groups, dim=0)",
        "rows = rows.repeat(weight_of(module).shape[0] // groups, 1)",
    ),
    Mutation(
        "biases are protected with their units",
        "odd Flattened",
        "callbacks/prior_use.py",
        'return ("weight",) if layer.bias is None else ("weight", "bias")',
        'return ("weight",)',
    ),
    Mutation(
        "updates are held back, not gradients: momentum and weight decay move weights too",
        "odd Flattened",
        "callbacks/gradient_adjust.py",
        "entries.write_into(tensor)",
        "pass",
    ),
)
"""From used units to protected weights."""

POLICIES = (
    Mutation(
        "norms are stored for each task",
        "narrow mobilenet_v3",
        "graph/policy.py",
        '"per_task": "per_task"',
        '"per_task": "shared"',
    ),
    Mutation(
        "heads are stored for each task",
        "odd Flattened",
        "graph/policy.py",
        '("per_task" if spec.heads.mode == "per_task" else "shared")',
        '"shared"',
    ),
    Mutation(
        "what is neither gated, norm nor head stays as it was after the first task",
        "odd BareParameters",
        "graph/policy.py",
        '"freeze": "frozen"',
        '"freeze": "shared"',
    ),
    Mutation(
        "no optimizer gets the gradient of a frozen parameter",
        "odd BareParameters",
        "protection/frozen_parameters.py",
        "for name in self._state.frozen:",
        "for name in ():",
    ),
    Mutation(
        "buffers that training changes are stored for each task",
        "odd RunningSize",
        "graph/policy.py",
        '        return "per_task", "a buffer outside',
        '        return "shared", "a buffer outside',
    ),
)
"""What is not gated."""
