"""Rules of tracing: what can be non-zero, and which units make it so."""

from __future__ import annotations

from tests.zoo.mutations.mutation import Mutation

OPERATIONS = (
    Mutation(
        "a sum can be non-zero if one of its terms can",
        "narrow mobilenet_v3",
        "graph/tracing/arithmetic_rules.py",
        "return ctx.table.join_tensors(*terms)",
        "return next(iter(terms))",
    ),
    Mutation(
        "a product is zero where one factor is",
        "narrow mobilenet_v3",
        "graph/tracing/labels.py",
        "return self._pairwise(a, b, self.meet)",
        "return self._pairwise(a, b, self.join)",
    ),
    Mutation(
        "sigmoid, softmax and exp make something of zero",
        "narrow mobilenet_v3",
        "graph/tracing/arithmetic_rules.py",
        '"relu relu6 gelu',
        '"sigmoid _softmax exp hardsigmoid relu relu6 gelu',
    ),
    Mutation(
        "an operation without a rule may do anything",
        "narrow mobilenet_v3",
        "graph/tracing/output_labels.py",
        "    if op.name not in RULES or (op.mutable and not op.is_in_place):\n        return LIVE",
        "    if op.name not in RULES or (op.mutable and not op.is_in_place):\n"
        "        return ctx.labels(op.inputs[0]) if op.inputs and op.inputs[0].shape == ctx.shape else LIVE",
    ),
    Mutation(
        "bounds take zero to the nearer one",
        "odd AwayFromZero",
        "graph/tracing/arithmetic_rules.py",
        "return ctx.arg(0) if function(probe, *ctx.op.args[1:], **ctx.op.kwargs).item() == 0 else constant(LIVE)",
        "return ctx.arg(0)",
    ),
    Mutation(
        "a sum or mean over an axis reads all of it",
        "odd Mixtures",
        "graph/tracing/arithmetic_rules.py",
        "    reduced = ctx.table.join_over(labels, list(dims) if dims else range(labels.dim()))",
        "    axes = [d % labels.dim() for d in dims or range(labels.dim())]\n"
        "    reduced = labels[tuple(slice(0, 1 if d in axes else None) for d in range(labels.dim()))]",
    ),
    Mutation(
        "a reduction unites different labels",
        "odd Mixtures",
        "graph/tracing/labels.py",
        'out[mixed] = torch.tensor(joined, dtype=torch.int32, device="cpu")[where]',
        "out[mixed] = rows[mixed][:, 0]",
    ),
    Mutation(
        "a pooled value may come from all of the map",
        "odd StitchedMaps",
        "graph/tracing/arithmetic_rules.py",
        "    return ctx.table.join_over(ctx.arg(0), [-2, -1])",
        "    return ctx.arg(0)[..., :1, :1]",
    ),
    Mutation(
        "a product of activations unites what it sums over, and needs both factors",
        "odd PlainScores",
        "graph/tracing/arithmetic_rules.py",
        "    return ctx.table.meet_tensors(rows, columns)",
        "    return ctx.arg(b)[..., :1, :]",
    ),
    Mutation(
        "attention leaves a value's closed units closed",
        "transformers t5, words",
        "graph/tracing/arithmetic_rules.py",
        "    return ctx.table.join_over(ctx.arg(2), [-2])",
        "    return constant(LIVE)",
    ),
)
"""What operations make of zero."""

MOVES = (
    Mutation(
        "concatenation keeps the order of its parts",
        "narrow shufflenet_v2",
        "graph/tracing/movement_rules.py",
        "parts, rest = [ctx.labels(t) for t in ctx.op.args[0]], ctx.op.args[1:]",
        "parts, rest = [ctx.labels(t) for t in ctx.op.args[0]][::-1], ctx.op.args[1:]",
    ),
    Mutation(
        "a view shows the labels of its own place",
        "narrow shufflenet_v2",
        "graph/tracing/label_store.py",
        'index = torch.tensor(offset, device="cpu")',
        'index = torch.tensor(0, device="cpu")',
    ),
    Mutation(
        "rolling and flipping move labels too",
        "odd MovedChannels",
        "graph/tracing/movement_rules.py",
        "    if dims and all(labels.stride(d) == 0 or labels.shape[d] == 1 for d in dims):\n        return labels",
        "    return labels",
    ),
    Mutation(
        "padding with another number than zero is live",
        "odd AwayFromZero",
        "graph/tracing/movement_rules.py",
        'fill = ZERO if is_zero(ctx.op.bound["value"]) else LIVE',
        "fill = ZERO",
    ),
    Mutation(
        "picking by numbers that the data decide may pick anything",
        "odd PickedByData",
        "graph/tracing/movement_rules.py",
        "if not all(t in ctx.constants for t in indices):",
        "if False:",
    ),
    Mutation(
        "writing into a tensor changes its labels",
        "odd InPlaceIntoSlice",
        "graph/tracing/dispatch_mode.py",
        "                store.put(t, LIVE if position else labels)",
        "                pass",
    ),
)
"""What operations that only move elements do with their places."""

NORMS = (
    Mutation(
        "a norm that mixes channels takes zero to its bias: nothing passes through as zero",
        "narrow convnext",
        "graph/tracing/dispatch_mode.py",
        "return maskable and self.recorder.record_regated_norm(name, op.args[0], output, axis)",
        "self.recorder.store.put(output, self.uses._labels(op.args[0]))\n        return True",
    ),
    Mutation(
        "a gate behind a norm that mixes channels needs one in front: closed channels would enter its statistics",
        "narrow convnext",
        "graph/tracing/dispatch_mode.py",
        "return maskable and self.recorder.record_regated_norm(name, op.args[0], output, axis)",
        "x, out = op.args[0].movedim(axis, 1), output.movedim(axis, 1)\n"
        "        moved = maskable and self.recorder.record_batch_norm(name, x, out)\n"
        "        for norms in [r.norms for r in self.recorder.records.values() if name in r.norms]:\n"
        "            norms[name] = axis if axis < 0 else axis - x.dim()\n"
        "        return moved",
    ),
    Mutation(
        "a BatchNorm over several layers' channels takes zero to its bias too",
        "narrow densenet",
        "graph/tracing/regated_norms.py",
        "return expand_along(torch.where(by_channel > LIVE, own, LIVE), labels, axis)",
        "self.refuse(norm)\n        return labels",
    ),
    Mutation(
        "a channel that is gated again behind a norm is closed as a whole, by all of its units",
        "odd NormOverSteps",
        "graph/tracing/regated_norms.py",
        "return expand_along(torch.where(by_channel > LIVE, own, LIVE), labels, axis)",
        "return labels",
    ),
    Mutation(
        "what the graph calls zero behind a norm is gated there",
        "narrow densenet",
        "gates/install.py",
        "for name, channels in graph.regates.items():",
        "for name, channels in ():",
    ),
    Mutation(
        "a gate moves behind a BatchNorm only where that alone reads the layer",
        "odd RawAlsoRead",
        "graph/tracing/build_graph.py",
        "and not record.raw_output_read and alone",
        "and alone",
    ),
    Mutation(
        "and only if the norm serves no other layer",
        "odd SharedNorm",
        "graph/tracing/build_graph.py",
        "and not record.raw_output_read and alone",
        "and not record.raw_output_read",
    ),
    Mutation(
        "and only if its channels are the layer's units in their order",
        "odd NormOverSteps",
        "graph/tracing/recorder.py",
        'if x.shape[1] != record.units or not equal(labels, expand_along(self.atoms(record, "raw"), x, 1 - x.dim())):',
        "if x.shape[1] != record.units:",
    ),
)
"""Norms, and gates behind them."""
