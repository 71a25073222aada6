"""Rules of weights: who uses them, who reads what through them, and what holds them back."""

from __future__ import annotations

from tests.zoo.mutations.mutation import Mutation

USES = (
    Mutation(
        "weights used by function are gated by their rows, not by hooks on modules that never run",
        "narrow vit",
        "tracing/resolve.py",
        "if record.hosts:",
        "if record.hosts and record.called:",
    ),
    Mutation(
        "a gate on rows closes the bias with them",
        "narrow vit",
        "gate_sites.py",
        'for name in ("weight", "bias"):',
        'for name in ("weight",):',
    ),
    Mutation(
        "a bias added to a product by function may be anybody's",
        "odd ForeignBias",
        "tracing/weights.py",
        "if bias is not None:",
        "if False:",
    ),
    Mutation(
        "a bias read outside its layer is gated there",
        "odd BiasElsewhere",
        "tracing/weights.py",
        "self._recorder.hosted(self._recorder.records[name], self._stack[-1])",
        "pass",
    ),
    Mutation(
        "all uses of a weight count, not the first alone",
        "odd SliceOfWeight",
        "tracing/recorder.py",
        "record.inputs = labels.clone() if record.inputs is None else self.table.either(record.inputs, labels)",
        "record.inputs = labels.clone() if record.inputs is None else record.inputs",
    ),
    Mutation(
        "columns of a part of a weight are numbered as in the whole",
        "odd SliceOfWeight",
        "tracing/weights.py",
        "self._recorder.feed(record, fed, columns)",
        'self._recorder.feed(record, fed, torch.arange(len(fed), device="cpu"))',
    ),
    Mutation(
        "and so are its rows",
        "odd SliceOfWeight",
        "tracing/weights.py",
        'self._recorder.atoms(record, "raw")[rows]',
        'self._recorder.atoms(record, "raw")[: len(rows)]',
    ),
    Mutation(
        "a weight that is turned over feeds other units",
        "odd SwappedKernel",
        "tracing/weights.py",
        "return t.shape == weight.shape and t.stride() == weight.stride() and not t.storage_offset()",
        "return t.shape == weight.shape and not t.storage_offset()",
    ),
    Mutation(
        "a weight that is transformed before its use is used by every unit",
        "odd WeightStandardised",
        "tracing/recorder.py",
        "record.whole = True\n",
        "record.whole = False\n",
    ),
    Mutation(
        "and so protected throughout, whatever units it has",
        "odd WeightStandardised",
        "callbacks/rates.py",
        "if info.whole and own.numel():",
        "if False:",
    ),
    Mutation(
        "a layer whose class has a forward of its own may mix its units",
        "odd MixingSubclass",
        "trace.py",
        "custom = record is not None and has_own_forward(module, record.kind.own_class(module))",
        "custom = False",
    ),
    Mutation(
        "a weight that two layers share takes no gate",
        "odd TiedWords",
        "trace.py",
        "if all(owners[storage_key(p)] == 1 for",
        "if all(owners[storage_key(p)] >= 1 for",
    ),
)
"""How a forward uses weights."""

RATES = (
    Mutation(
        "what is always live counts as always used",
        "odd AwayFromZero",
        "graph.py",
        "return torch.where(live, torch.as_tensor(live_value, dtype=values.dtype, device=device), largest)",
        "return torch.where(live, torch.zeros_like(largest), largest)",
    ),
    Mutation(
        "an input is used if one of its units is",
        "narrow mobilenet_v3",
        "graph.py",
        '.scatter_reduce(0, feature, picked, "amax")',
        '.scatter_reduce(0, feature, picked, "mean", include_self=False)',
    ),
    Mutation(
        "of an input that is a product each set must have a unit on, and within a set one is enough",
        "odd PlainScores",
        "graph.py",
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
        "and to those of no other group",
        "odd ShuffledGroups",
        "layers/conv.py",
        'rows = rows.repeat_interleave(module.get_parameter("weight").shape[0] // groups, dim=0)',
        'rows = rows.repeat(module.get_parameter("weight").shape[0] // groups, 1)',
    ),
    Mutation(
        "biases are protected with their units",
        "odd Flattened",
        "callbacks/rates.py",
        'parts = ("weight",) if layer.bias is None else ("weight", "bias")\n    return {local: PriorUse',
        'parts = ("weight",)\n    return {local: PriorUse',
    ),
    Mutation(
        "updates are held back, not gradients: momentum and weight decay move weights too",
        "odd Flattened",
        "callbacks/gradient_adjust.py",
        '                if self.spec.apply_to == "gradient":',
        "                if True:",
    ),
)
"""From units that are used to weights that stay."""

POLICIES = (
    Mutation(
        "norms are stored for each task",
        "narrow mobilenet_v3",
        "policy.py",
        '"per_task": "per_task"',
        '"per_task": "shared"',
    ),
    Mutation(
        "heads are stored for each task",
        "odd Flattened",
        "policy.py",
        '("per_task" if spec.heads.mode == "per_task" else "shared")',
        '"shared"',
    ),
    Mutation(
        "what is neither gated, norm nor head stays as the first task left it",
        "odd BareParameters",
        "policy.py",
        '"freeze": "frozen"',
        '"freeze": "shared"',
    ),
    Mutation(
        "no optimizer sees the gradient of what stays",
        "odd BareParameters",
        "steps.py",
        "for name in self._runtime.frozen:",
        "for name in ():",
    ),
    Mutation(
        "buffers that training changes are stored for each task",
        "odd RunningSize",
        "policy.py",
        '        return "per_task", "a buffer outside',
        '        return "shared", "a buffer outside',
    ),
)
"""What is not gated."""
