"""The engine of a trace: one forward whose tensors carry labels that say which units they depend on.

What belongs here works on tensors, labels and aten operations. It knows no gate, no spec and no task.
"""
