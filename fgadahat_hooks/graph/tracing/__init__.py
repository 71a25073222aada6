"""The engine of a trace: one forward whose tensors carry labels, which say on what units each element depends.

It works on tensors, labels and ATen operations, and knows no gate, spec or task. To support a further ATen operation,
register a rule: in `movement_rules.py` if it only moves elements, else in `arithmetic_rules.py`. An operation that
reads a layer's weight has a handler in `weight_uses.py`.
"""
