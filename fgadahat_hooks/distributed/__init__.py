"""Several processes that train one model: collectives over the ranks, and checks for wrapped or sharded models.

Code in this folder knows torch.distributed and tensors, but no gates, specs or tasks. A new collective belongs in
`ranks`, a new wrapper to refuse in `wrappers`.
"""
