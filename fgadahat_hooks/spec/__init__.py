"""What a user may ask for: the blocks of a spec, presets, files, error texts, and patterns that name layers.

What belongs here is checked data. It never sees a tensor's values, a gate or a task.
"""
