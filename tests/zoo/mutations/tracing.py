"""Rules of tracing: what can be non-zero, and which units make it so."""

from __future__ import annotations

from tests.zoo.mutations.mutation import Mutation

OPERATIONS = (
    Mutation(
        "a sum can be non-zero if one of its terms can",
        "narrow mobilenet_v3",
        "tracing/rules.py",
        "return call.table.either(*terms)",
        "return next(iter(terms))",
    ),
    Mutation(
        "a product is zero where one factor is",
        "narrow mobilenet_v3",
        "tracing/labels.py",
        "return self._pairwise(a, b, self.meet)",
        "return self._pairwise(a, b, self.join)",
    ),
    Mutation(
        "sigmoid, softmax and exp make something of zero",
        "narrow mobilenet_v3",
        "tracing/rules.py",
        '"relu relu6 gelu',
        '"sigmoid _softmax exp hardsigmoid relu relu6 gelu',
    ),
    Mutation(
        "an operation without a rule may do anything",
        "narrow mobilenet_v3",
        "tracing/relabel.py",
        "    if op.name not in RULES or (op.mutable and not op.is_in_place):\n        return LIVE",
        "    if op.name not in RULES or (op.mutable and not op.is_in_place):\n"
        "        return call.labels(op.inputs[0]) if op.inputs and op.inputs[0].shape == call.shape else LIVE",
    ),
    Mutation(
        "bounds take zero to the nearer one",
        "odd AwayFromZero",
        "tracing/rules.py",
        "return call.arg(0) if function(probe, *call.op.args[1:], **call.op.kwargs).item() == 0 else constant(LIVE)",
        "return call.arg(0)",
    ),
    Mutation(
        "a sum or mean over an axis reads all of it",
        "odd Mixtures",
        "tracing/rules.py",
        "    reduced = call.table.over(labels, list(dims) if dims else range(labels.dim()))",
        "    axes = [d % labels.dim() for d in dims or range(labels.dim())]\n"
        "    reduced = labels[tuple(slice(0, 1 if d in axes else None) for d in range(labels.dim()))]",
    ),
    Mutation(
        "a reduction unites different labels",
        "odd Mixtures",
        "tracing/labels.py",
        'out[mixed] = torch.tensor(united, dtype=torch.int32, device="cpu")[where]',
        "out[mixed] = rows[mixed][:, 0]",
    ),
    Mutation(
        "a pooled value may come from all of the map",
        "odd StitchedMaps",
        "tracing/rules.py",
        "    return call.table.over(call.arg(0), [-2, -1])",
        "    return call.arg(0)[..., :1, :1]",
    ),
    Mutation(
        "a product of activations unites what it sums over, and needs both factors",
        "odd PlainScores",
        "tracing/rules.py",
        "    return call.table.both(call.table.over(call.arg(a), [-1]), call.table.over(call.arg(b), [-2]))",
        "    return call.arg(b)[..., :1, :]",
    ),
    Mutation(
        "attention leaves a value's closed units closed",
        "transformers t5, words",
        "tracing/rules.py",
        "    return call.table.over(call.arg(2), [-2])",
        "    return constant(LIVE)",
    ),
)
"""What operations make of zero."""

MOVES = (
    Mutation(
        "concatenation keeps the order of its parts",
        "narrow shufflenet_v2",
        "tracing/moves.py",
        "parts, rest = [call.labels(t) for t in call.op.args[0]], call.op.args[1:]",
        "parts, rest = [call.labels(t) for t in call.op.args[0]][::-1], call.op.args[1:]",
    ),
    Mutation(
        "a view shows the labels of its own place",
        "narrow shufflenet_v2",
        "tracing/store.py",
        "period = self.run * self.values.numel()",
        "offset, period = 0, self.run * self.values.numel()",
    ),
    Mutation(
        "rolling and flipping move labels too",
        "odd MovedChannels",
        "tracing/moves.py",
        "    if dims and all(labels.stride(d) == 0 or labels.shape[d] == 1 for d in dims):\n        return labels",
        "    return labels",
    ),
    Mutation(
        "padding with another number than zero is live",
        "odd AwayFromZero",
        "tracing/moves.py",
        'fill = ZERO if is_zero(call.op.bound["value"]) else LIVE',
        "fill = ZERO",
    ),
    Mutation(
        "picking by numbers that the data decide may pick anything",
        "odd PickedByData",
        "tracing/moves.py",
        "if not all(call.constants.holds(t) for t in pickers):",
        "if False:",
    ),
    Mutation(
        "writing into a tensor changes its labels",
        "odd InPlaceIntoSlice",
        "tracing/mode.py",
        "            store.put(t, 1 if position else labels)",
        "            pass",
    ),
)
"""What operations that only move elements do with their places."""

NORMS = (
    Mutation(
        "a norm that mixes channels takes zero to its bias: nothing passes through as zero",
        "narrow convnext",
        "tracing/mode.py",
        "return folds and self.recorder.gated_again(name, op.args[0], op.first_out, axis)",
        "self.recorder.store.put(op.first_out, self.uses._labels(op.args[0]))\n            return True",
    ),
    Mutation(
        "a gate behind a norm that mixes channels needs one in front: closed channels would enter its statistics",
        "narrow convnext",
        "tracing/mode.py",
        "return folds and self.recorder.gated_again(name, op.args[0], op.first_out, axis)",
        "x, out = op.args[0].movedim(axis, 1), op.first_out.movedim(axis, 1)\n"
        "            moved = folds and self.recorder.normalised(name, x, out)\n"
        "            for norms in [r.norms for r in self.recorder.records.values() if name in r.norms]:\n"
        "                norms[name] = axis if axis < 0 else axis - x.dim()\n"
        "            return moved",
    ),
    Mutation(
        "a BatchNorm over several layers' channels takes zero to its bias too",
        "narrow densenet",
        "tracing/regating.py",
        "return along(torch.where(line > LIVE, mine, LIVE), labels, axis)",
        "self.refuse(norm)\n        return labels",
    ),
    Mutation(
        "a channel that is gated again behind a norm is closed as a whole, by all of its units",
        "odd NormOverSteps",
        "tracing/regating.py",
        "return along(torch.where(line > LIVE, mine, LIVE), labels, axis)",
        "return labels",
    ),
    Mutation(
        "what the graph calls zero behind a norm is gated there",
        "narrow densenet",
        "attach.py",
        "for name, channels in graph.regates.items():",
        "for name, channels in ():",
    ),
    Mutation(
        "a gate moves behind a BatchNorm only where that alone reads the layer",
        "odd RawAlsoRead",
        "tracing/resolve.py",
        "and not record.read_elsewhere and alone",
        "and alone",
    ),
    Mutation(
        "and only if the norm serves no other layer",
        "odd SharedNorm",
        "tracing/resolve.py",
        "and not record.read_elsewhere and alone",
        "and not record.read_elsewhere",
    ),
    Mutation(
        "and only if its channels are the layer's units in their order",
        "odd NormOverSteps",
        "tracing/recorder.py",
        'if x.shape[1] != record.units or not equal(labels, along(self.atoms(record, "raw"), x, 1 - x.dim())):',
        "if x.shape[1] != record.units:",
    ),
)
"""Norms, and gates behind them."""
