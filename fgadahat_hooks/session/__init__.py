"""What users call: `attach` and `load` return a `Session`, through which everything else is done.

The modules here build the parts and pass them to each other; what the parts do is implemented in the folders below, and
none of these imports this one. `Session` has three layers: `views` reads, `folder` saves and restores, `session` acts.
"""
