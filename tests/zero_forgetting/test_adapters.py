"""Adapters of PEFT: the base stays as it is, each task has its head, finished tasks keep their bits."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import resnet18
from transformers import BertConfig, BertForSequenceClassification

import fgadahat_hooks as fh

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

CLASSES = 3
TEXT: dict[str, Tensor] = {"input_ids": torch.randint(3, 50, (6, 8), generator=torch.Generator().manual_seed(0))}
LABELS = torch.arange(6) % CLASSES
CONFIGS: dict[str, peft.PeftConfig] = {
    "lora": peft.LoraConfig(r=4, task_type="SEQ_CLS"),
    "dora": peft.LoraConfig(r=4, use_dora=True, task_type="SEQ_CLS"),
    "ia3": peft.IA3Config(task_type="SEQ_CLS"),
    "prompt": peft.PromptTuningConfig(num_virtual_tokens=4, task_type="SEQ_CLS"),
}


def bert(config: peft.PeftConfig) -> Any:
    torch.manual_seed(0)
    sizes: Any = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    sizes |= {"vocab_size": 50, "num_labels": CLASSES}
    model = BertForSequenceClassification(BertConfig(**sizes))
    return peft.get_peft_model(model, config)


def logits(model: Any, inputs: Any) -> Tensor:
    out = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    found: Tensor = out if isinstance(out, Tensor) else out.logits
    return found


def learn(session: fh.Session, task: str, inputs: Any) -> Tensor:
    """Learn a task; return its logits."""
    with session.task(task) as running:
        optimizer = running.protect(torch.optim.AdamW(session.parameter_groups(lr=1e-2, weight_decay=0.1)))
        session.model.train()
        for _ in running.batches(range(3)):
            optimizer.zero_grad()
            loss = F.cross_entropy(logits(session.model, inputs), LABELS)
            (loss + running.regularization()).backward()
            optimizer.step()
    return served(session, task, inputs)


def served(session: fh.Session, task: str, inputs: Any) -> Tensor:
    session.model.eval()
    with torch.no_grad(), session.use(task):
        return logits(session.model, inputs).clone()


@pytest.mark.parametrize(
    ("preset", "kind"), [("hat_lora", "lora"), ("hat_lora", "dora"), *(("hat", k) for k in ("lora", "ia3", "prompt"))]
)
def test_two_tasks_on_text(preset: str, kind: str) -> None:
    session = fh.attach(bert(CONFIGS[kind]), fh.preset(preset, tasks=2), TEXT)
    assert session.graph.heads == (
        f"base_model.{'' if kind == 'prompt' else 'model.'}classifier.modules_to_save.default",
    )
    base = {name: p.detach().clone() for name, p in session.model.named_parameters() if not p.requires_grad}
    before = learn(session, "a", TEXT)
    second = learn(session, "b", TEXT)
    assert torch.equal(before, served(session, "a", TEXT))
    assert not torch.equal(before, second)
    now = dict(session.model.named_parameters())
    assert all(torch.equal(value, now[name]) for name, value in base.items())


def test_adapters_on_convolutions_and_an_export_that_is_merged() -> None:
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules=["layer4.0.conv1", "layer4.1.conv2"], modules_to_save=["fc"])
    session = fh.attach(
        peft.get_peft_model(resnet18(num_classes=CLASSES), config), fh.preset("hat_lora", tasks=2), image()
    )
    assert {name.split(".")[-2] for name in session.graph.layers} == {"lora_A", "lora_B"}
    before = learn(session, "a", image())
    learn(session, "b", image())
    exported: Any = session.export("a")
    merged = exported.merge_and_unload().eval()
    with torch.no_grad():
        torch.testing.assert_close(logits(merged, image()), before, rtol=1e-4, atol=1e-4)


def image() -> Tensor:
    return torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
