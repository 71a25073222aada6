"""Gates, the sites where they act, and the state of one attached model.

This folder holds what hooks read during a forward: gates, masks, per-task tensors and records of finished tasks; and
`install`, which puts the hooks on a model. Reactions to training events are in `callbacks`, the life of a task in
`tasks`. To add a site where a mask acts, write its hook and its `install_...` function in `sites`, and call that in
`install`.
"""
