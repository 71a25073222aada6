"""A session in a folder: tensors in safetensors files, everything else in a JSON manifest."""

from fgadahat_hooks.checkpoint.fingerprint import refuse_another
from fgadahat_hooks.checkpoint.restore import restore_extra
from fgadahat_hooks.checkpoint.save import Contents, read_session, save_session

__all__ = ["Contents", "read_session", "refuse_another", "restore_extra", "save_session"]
