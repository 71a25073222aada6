"""Several processes that train one model: what the ranks share, and how wrapped or sharded models are refused.

What belongs here knows torch.distributed and tensors. It knows no gate, no spec and no task.
"""
