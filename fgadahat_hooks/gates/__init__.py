"""The gate of a layer, the places where it acts, and what belongs to one attached model.

What belongs here is state that hooks read in a forward: gates, masks, per-task tensors, records of finished tasks. What
happens at the events of a task is in `callbacks`; how a task begins and ends is in `tasks`.
"""
