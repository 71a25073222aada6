"""The spec, i.e. all choices of a user: its blocks, presets, files, error messages, and patterns that name layers.

This folder holds validated data only; no values of tensors, gates or tasks. A new field goes into its block in
`attach_spec` or `callback_specs` with a type from `base`; a new preset into `presets`; a new file format into `files`.
"""
