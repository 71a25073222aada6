"""Learn task after task on your own model without forgetting: HAT, AdaHAT and FG-AdaHAT gates by hooks.

The folders, top to bottom; each imports only what stands below it:

- `adapters` for trainers, `cli`, `metrics`, `plots`, `report`, `summary`: what looks at a run, or drives one.
- `session`: `attach`, `load`, `Session`. `checkpoint`: saved folders. `verify`: the proof.
- `tasks`: one task from begin to end. `protection`: what keeps finished tasks. `export`: a task as a plain module.
- `callbacks`: importance, summation, adjustment rates. `gates`: the gate and one attached model.
- `graph`: the unit graph of a model. `importance`: measures. `spec`: what users may ask for. `layers`: layer types.
- `functional`: the equations. `distributed`: ranks. `errors`, `hooks`, `progress`, `registry`: no knowledge of gates.
"""

from fgadahat_hooks import registry
from fgadahat_hooks.callbacks import (
    Callback,
    GradientAdjustCallback,
    ImportanceCallback,
    SummationCallback,
    TaskContext,
)
from fgadahat_hooks.errors import FgadahatError
from fgadahat_hooks.export import ExportReport
from fgadahat_hooks.importance import Measure, register_measure
from fgadahat_hooks.protection.plan import Plan
from fgadahat_hooks.protection.planning import plan
from fgadahat_hooks.report import report
from fgadahat_hooks.session.attach import attach
from fgadahat_hooks.session.load import load
from fgadahat_hooks.session.session import Session
from fgadahat_hooks.spec.attach_spec import AttachSpec
from fgadahat_hooks.spec.choices import fill_registry as _fill_registry
from fgadahat_hooks.spec.files import dump_spec, json_schema, load_spec
from fgadahat_hooks.spec.presets import preset
from fgadahat_hooks.tasks.certificate import Certificate
from fgadahat_hooks.tasks.forgetting import ForgetReport
from fgadahat_hooks.tasks.task import Task
from fgadahat_hooks.verify import AuditReport, VerifyReport

__version__ = "0.1.0"

_fill_registry()

__all__ = [
    "AttachSpec",
    "AuditReport",
    "Callback",
    "Certificate",
    "ExportReport",
    "FgadahatError",
    "ForgetReport",
    "GradientAdjustCallback",
    "ImportanceCallback",
    "Measure",
    "Plan",
    "Session",
    "SummationCallback",
    "Task",
    "TaskContext",
    "VerifyReport",
    "attach",
    "dump_spec",
    "json_schema",
    "load",
    "load_spec",
    "plan",
    "preset",
    "register_measure",
    "registry",
    "report",
]
