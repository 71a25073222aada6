"""A few small models that together cover every operation tracing has to understand; the sweep's in miniature.

Published classes in narrow configurations, so that their real forward runs, and models written by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torchvision.models as published
from torch import nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.mobilenetv3 import InvertedResidualConfig

from tests.zoo.sweep.catalogue import catalogue
from tests.zoo.sweep.subject import CLASSES, Subject, images

Make = Callable[[], nn.Module]


def _mobilenet() -> nn.Module:
    first = InvertedResidualConfig(8, 3, 16, 8, True, "RE", 2, 1, 1.0)
    second = InvertedResidualConfig(8, 5, 16, 8, True, "HS", 1, 1, 1.0)
    model: nn.Module = published.MobileNetV3([first, second], last_channel=16, num_classes=CLASSES)
    return model


NARROW: dict[str, tuple[Make, int, str]] = {
    "mobilenet_v3": (_mobilenet, 16, "depthwise convolutions, squeeze-excitation, hardswish and hardsigmoid, residual"),
    "shufflenet_v2": (
        partial(published.ShuffleNetV2, [2, 2, 2], [8, 16, 32, 64, 32], num_classes=CLASSES),
        32,
        "channel shuffle, chunk, concatenation, max-pooling",
    ),
    "densenet": (
        partial(
            published.DenseNet, growth_rate=4, block_config=(2, 2), num_init_features=8, bn_size=2, num_classes=CLASSES
        ),
        32,
        "dense concatenation with reuse, BatchNorm over what is concatenated, average pooling",
    ),
    "convnext": (
        partial(published.ConvNeXt, [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=CLASSES),
        32,
        "LayerNorm behind convolutions, permutations, layer scales of no layer",
    ),
    "swin": (
        partial(
            published.SwinTransformer,
            patch_size=[2, 2],
            embed_dim=8,
            depths=[2, 2],
            num_heads=[1, 2],
            window_size=[4, 4],
            num_classes=CLASSES,
        ),
        16,
        "weights used functionally, windows, rolling, padding, attention by matrix products, patches by strided slices",
    ),
    "vit": (
        partial(
            published.VisionTransformer,
            image_size=16,
            patch_size=8,
            num_layers=2,
            num_heads=2,
            hidden_dim=16,
            mlp_dim=32,
            num_classes=CLASSES,
        ),
        16,
        "multi-head attention with packed projections, a class token, positions",
    ),
}

LISTED: dict[str, str] = {
    "transformers llama": "gated MLP, RMSNorm, rotary positions, scaled dot-product attention, a dataclass as output",
    "transformers t5, words": "encoder and decoder, relative positions, cross-attention",
    "transformers wav2vec2": "one-dimensional convolutions, GroupNorm, weight normalisation, several calls of one norm",
    "odd StitchedMaps": "padding and pooling of maps whose parts come from different layers",
    "odd PlainScores": "products of activations that are summed over units",
    "odd UNet": "transposed convolution, InstanceNorm, leaky functions, a convolution as head",
    "odd ShuffledGroups": "grouped convolutions, norms behind each",
    "odd Frozen": "trained and frozen layers, three-way sums",
    "odd BareParameters": "parameters of no layer, a product with a bare matrix",
    "odd TiedWords": "a head that shares the embedding's weight",
    "odd Recurrent": "recurrent layers that are not gated, a dict as output",
    "odd Highway": "sigmoid, one block used three times",
    "odd Mixtures": "softmax, stacking, sums over experts",
    "odd RawAlsoRead": "a layer that is read before its norm and behind it",
    "odd SliceOfWeight": "slices of a weight used by function",
    "odd BiasElsewhere": "a bias used apart from its layer",
    "odd PickedByData": "indices that depend on the values",
    "odd InPlaceIntoSlice": "writing into a view",
    "odd MovedChannels": "rolled, flipped, transposed, padded channels",
    "odd Flattened": "a map flattened into features",
    "odd WeightStandardised": "a weight that is transformed before use",
    "odd Checkpointed": "gradient checkpointing",
    "odd Signal": "grouped and transposed convolutions of one dimension, GroupNorm that mixes channels",
    "odd SharedNorm": "one norm behind two layers",
    "odd NormOverSteps": "a norm whose channels are not the units of the layer in front",
    "odd MixingSubclass": "a layer whose own forward mixes its units",
    "odd RunningSize": "a buffer outside norms that training changes",
    "odd SwappedKernel": "a weight used with rows and columns exchanged",
    "odd ForeignBias": "a weight used by function with another's bias",
    "odd AwayFromZero": "bounds and padding that are not zero, a layer some of whose inputs are always live",
}


def sample() -> Iterator[Subject]:
    """Yield the subjects, each noting what it is there for."""
    for name, (make, size, note) in NARROW.items():
        yield Subject(f"narrow {name}", "torchvision", make, images(size), note=note, batch=8, steps=3)
    known = catalogue()
    for name, note in LISTED.items():
        found = known[name]
        yield Subject(name, found.family, found.make, found.inputs, found.spec, note, steps=3)


SAMPLE = {subject.name: subject for subject in sample()}
