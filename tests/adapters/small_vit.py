"""A very small vision transformer of transformers, with data and arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import TrainingArguments, ViTConfig, ViTForImageClassification

import fgadahat_hooks as fh

PROBE = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(5))


class Images(Dataset[dict[str, Tensor]]):
    """Noise with labels."""

    def __init__(self, count: int, classes: int = 3, seed: int = 0) -> None:
        self.pixels = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
        self.labels = torch.arange(count) % classes

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": self.pixels[index], "labels": self.labels[index]}


def vit() -> ViTForImageClassification:
    """Return a vision transformer of two small blocks, without dropout."""
    config = ViTConfig(
        image_size=8,
        patch_size=4,
        num_channels=1,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
    )
    config.num_labels = 3
    return ViTForImageClassification(config)


def attached(spec: Any = None, callbacks: list[fh.Callback] | None = None) -> fh.Session:
    torch.manual_seed(0)
    return fh.attach(vit(), spec or {"adjustment": {"mode": "hat"}}, {"pixel_values": PROBE[:2]}, callbacks)


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    """Return quiet arguments for a CPU."""
    quiet = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True, "use_cpu": True}
    return TrainingArguments(
        str(folder),
        **{
            **quiet,
            "optim": "adamw_torch",
            "train_sampling_strategy": "sequential",
            "per_device_train_batch_size": 4,
            "num_train_epochs": 1,
            "learning_rate": 1e-2,
            "weight_decay": 0.1,
            **options,
        },
    )


def logits(session: fh.Session, task: str) -> Tensor:
    session.model.eval()
    with torch.no_grad(), session.use(task):
        out: Tensor = session.model(PROBE).logits
    return out


def embeddings(session: fh.Session) -> list[nn.Parameter]:
    found: list[nn.Parameter] = session.parameter_groups(lr=1.0)[1]["params"]
    return found
