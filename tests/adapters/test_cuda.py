"""The same guarantees on an accelerator: bit-identical with deterministic algorithms, in each precision and adapter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW

import fgadahat_hooks as fh
from tests.adapters.conformance import SPECS, VARIANTS, run
from tests.adapters.ddp_worlds import images, normed
from tests.adapters.subjects import SUBJECTS, plain_loop

DEVICE = "cuda"
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use deterministic algorithms; an operation without one raises."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    benchmark = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark


def logits(session: fh.Session, task: str) -> Tensor:
    session.model.eval()
    with torch.no_grad(), session.use(task):
        out: Tensor = session.model(images(6, 99).to(DEVICE))
    return out


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["float32", "bfloat16", "float16"]
)
@pytest.mark.parametrize("fused", [False, True], ids=["", "fused"])
def test_hard_hat_forgets_no_bit(dtype: torch.dtype, fused: bool) -> None:
    session = fh.attach(normed().to(DEVICE), {}, images(2, 0).to(DEVICE))
    ended = {}
    for number, classes in enumerate((3, 5, 4)):
        name = f"task {number}"
        with session.task(name, num_classes=classes) as task:
            groups = session.parameter_groups(lr=1e-2, gate_lr=1e-2, weight_decay=0.1)
            optimizer = task.protect(AdamW(groups, fused=fused))
            scaler = torch.amp.GradScaler(DEVICE, enabled=dtype == torch.float16)
            session.model.train()
            for step, y in task.batches([(k, (torch.arange(8) % classes).to(DEVICE)) for k in range(6)]):
                optimizer.zero_grad()
                with torch.autocast(DEVICE, dtype, enabled=dtype != torch.float32):
                    out = session.model(images(8, 10 * number + step).to(DEVICE))
                scaler.scale(F.cross_entropy(out.float(), y) + task.regularization()).backward()
                scaler.step(optimizer)
                scaler.update()
        ended[name] = logits(session, name)
        used = torch.cat(list(session.masks(name).values()))
        assert 0 < int(used.sum()) < used.numel()
    assert [name for name, before in ended.items() if not torch.equal(before, logits(session, name))] == []
    session.verify()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_an_adapter_gives_the_bits_of_the_plain_loop(subject: str, spec: str, variant: str) -> None:
    here = run(SUBJECTS[subject], spec, VARIANTS[variant], DEVICE)
    assert here.differing(run(plain_loop, spec, VARIANTS[variant], DEVICE)) == []


def test_gates_and_records_follow_the_model_to_the_device() -> None:
    session = fh.attach(normed(), {}, images(2, 0))
    session.model.to(DEVICE)
    with session.task("a") as task:
        optimizer = task.protect(AdamW(session.parameter_groups(lr=1e-2)))
        for x in task.batches([images(4, k).to(DEVICE) for k in range(2)]):
            (session.model(x).square().mean() + task.regularization()).backward()
            optimizer.step()
    there = logits(session, "a")
    session.model.cpu()
    with torch.no_grad(), session.use("a"):
        here = session.model(images(6, 99))
    torch.testing.assert_close(here, there.cpu(), rtol=1e-3, atol=1e-4)
