"""A session in a folder: tensors in safetensors files, everything else in a JSON manifest."""

from fgadahat_hooks.checkpoint.fingerprint import describe, refuse_another
from fgadahat_hooks.checkpoint.restore import restore_extra
from fgadahat_hooks.checkpoint.save import Contents, library_version, read_plain_extra, read_session, save_session

__all__ = [
    "Contents",
    "describe",
    "library_version",
    "read_plain_extra",
    "read_session",
    "refuse_another",
    "restore_extra",
    "save_session",
]
