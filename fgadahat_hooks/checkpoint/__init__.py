"""A session in a folder on disk: tensors in safetensors files, everything else in a JSON manifest.

`save` is what a session calls to write and read; `state` is its state as plain data, `extra` and `restore` are what the
loop saves beside it. The format: `folder` (files, written as a whole), `manifest` (fields, version), `plain` (values).
To store one more thing of a session, add it to `state.dump_state` and `state.load_state`, and its type to `state_form`.
Nothing is pickled; `session` is not imported.
"""

from fgadahat_hooks.checkpoint.fingerprint import class_name, refuse_other_model
from fgadahat_hooks.checkpoint.restore import restore_extra
from fgadahat_hooks.checkpoint.save import (
    Contents,
    library_version,
    read_plain_extra,
    read_session,
    save_session,
    saved_spec,
)

__all__ = [
    "Contents",
    "class_name",
    "library_version",
    "read_plain_extra",
    "read_session",
    "refuse_other_model",
    "restore_extra",
    "save_session",
    "saved_spec",
]
