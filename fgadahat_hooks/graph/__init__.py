"""From a model to its `UnitGraph`: which layers are gated, which units feed which inputs, how each tensor is protected.

Everything here inspects a model and changes nothing; gates are made in `gates`. Start with `trace.py`; `unit_graph.py`
is the result. The engine that follows a forward is in `graph.tracing`; rules for more ATen operations belong there.
"""
