"""From a model to its unit graph: which layers are gated, which units feed which inputs, how each tensor is protected.

What belongs here looks at a model and changes nothing. The engine that traces a forward is in `graph.tracing`; no gate
is made here.
"""
