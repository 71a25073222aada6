"""Models of transformers, from small configurations with random values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from tests.zoo.sweep.subject import CLASSES, WORDS, Inputs, Subject, images, normal, words

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
TEXT: dict[str, Any] = {"vocab_size": WORDS, **SMALL}
IMAGE: dict[str, Any] = {"image_size": 32, "patch_size": 8}
STAGES: dict[str, Any] = {"depths": [1, 2], "hidden_sizes": [16, 32]}
T5: dict[str, Any] = {"vocab_size": WORDS, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
SPEECH: dict[str, Any] = {
    **SMALL,
    "conv_dim": (16, 16),
    "conv_kernel": (4, 4),
    "conv_stride": (4, 4),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 16,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
}
AS_TUPLE: dict[str, Any] = {"return_dict": False}


def _closed(inputs: Inputs) -> Inputs:
    """End every sentence with the token 1."""

    def draw(count: int, seed: int) -> Any:
        found: Any = inputs(count, seed)
        return {**found, "input_ids": torch.cat([found["input_ids"], torch.ones(count, 1, dtype=torch.long)], 1)}

    return draw


def _with_decoder(inputs: Inputs) -> Inputs:
    """Give an encoder's words to the decoder, too."""

    def draw(count: int, seed: int) -> Any:
        found: Any = inputs(count, seed)
        return {**found, "decoder_input_ids": found["input_ids"][:, :4]}

    return draw


CLASSIFIERS: dict[str, tuple[str, dict[str, Any], Inputs]] = {
    "bert": ("BertForSequenceClassification", TEXT, words()),
    "roberta": ("RobertaForSequenceClassification", {**TEXT, "pad_token_id": 1}, words()),
    "distilbert": (
        "DistilBertForSequenceClassification",
        {"vocab_size": WORDS, "dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2},
        words(),
    ),
    "albert": ("AlbertForSequenceClassification", {**TEXT, "embedding_size": 8, "num_hidden_layers": 3}, words()),
    "gpt2": (
        "GPT2ForSequenceClassification",
        {"vocab_size": WORDS, "n_embd": 16, "n_layer": 2, "n_head": 2, "pad_token_id": 0},
        words(),
    ),
    "llama": ("LlamaForSequenceClassification", {**TEXT, "pad_token_id": 0, "num_key_value_heads": 1}, words()),
    "mistral": ("MistralForSequenceClassification", {**TEXT, "pad_token_id": 0, "num_key_value_heads": 1}, words()),
    "vit": ("ViTForImageClassification", {**SMALL, **IMAGE}, images(32)),
    "deit": ("DeiTForImageClassification", {**SMALL, **IMAGE}, images(32)),
    "beit": ("BeitForImageClassification", {**SMALL, **IMAGE}, images(32)),
    "dinov2": ("Dinov2ForImageClassification", {**SMALL, **IMAGE, "mlp_ratio": 2}, images(32)),
    "swin": (
        "SwinForImageClassification",
        {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4},
        images(32),
    ),
    "convnext": ("ConvNextForImageClassification", {**STAGES, "num_stages": 2}, images(32)),
    "convnextv2": ("ConvNextV2ForImageClassification", {**STAGES, "num_stages": 2}, images(32)),
    "resnet": ("ResNetForImageClassification", {**STAGES, "embedding_size": 16, "layer_type": "basic"}, images(32)),
    "mobilevit": (
        "MobileViTForImageClassification",
        {
            "image_size": 64,
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 32],
            "num_attention_heads": 2,
        },
        images(64),
    ),
    "wav2vec2": ("Wav2Vec2ForSequenceClassification", SPEECH, normal(400)),
    "t5": (
        "T5ForSequenceClassification",
        {**T5, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0},
        _closed(words()),
    ),
}


def subjects() -> Iterator[Subject]:
    """Yield the classifiers, some with tuples as outputs, and models that put out words."""
    for name, (cls, options, inputs) in CLASSIFIERS.items():
        options = {"num_labels": CLASSES, **options}
        yield Subject(f"transformers {name}", "transformers", _maker(cls, options), inputs)
    plain = _maker("BertForSequenceClassification", {"num_labels": CLASSES, **TEXT, **AS_TUPLE})
    yield Subject("transformers bert, tuples", "transformers", plain, words())
    yield from _word_models()


def _word_models() -> Iterator[Subject]:
    for name, cls, options, more in (
        ("t5, words", "T5ForConditionalGeneration", {**T5, "tie_word_embeddings": False}, True),
        ("gpt2, words", "GPT2LMHeadModel", {"vocab_size": WORDS, "n_embd": 16, "n_layer": 2, "n_head": 2}, False),
        ("llama, words", "LlamaForCausalLM", TEXT, False),
        ("bert, words", "BertForMaskedLM", TEXT, False),
    ):
        inputs = _with_decoder(words()) if more else words()
        yield Subject(f"transformers {name}", "transformers", _maker(cls, options), inputs)


def _maker(cls: str, options: dict[str, Any]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import transformers

        wanted = getattr(transformers, cls)
        model: nn.Module = wanted(wanted.config_class(**options))
        return model

    return make
