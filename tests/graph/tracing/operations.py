"""Tables of tensor operations, each a function of tensors, for the tests of the rules."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Function = Callable[..., Tensor]
PLANE = (2, 4, 4, 4)
ROWS = (3, 4)
VOLUME = (2, 3, 2, 4, 2)

UNARY: dict[str, Function] = {
    name: getattr(torch, name)
    for name in (
        "relu abs neg sqrt square sin asin sinh atan sign round floor ceil trunc erf tanh expm1 log1p nan_to_num "
        "sgn asinh atanh erfinv frac tan clone positive selu celu detach"
    ).split()
} | {
    name: getattr(F, name)
    for name in "relu6 gelu silu hardswish leaky_relu elu mish hardtanh hardshrink softshrink".split()
}

ELEMENTS: dict[str, Function] = {
    "dropout": lambda x: F.dropout(x, 0.5, training=True),
    "prelu": lambda x: F.prelu(x, torch.full((x.shape[1],), 0.3)),
    "clamp": lambda x: x.clamp(-1, 2) + x.clamp_min(-1) + x.clamp_max(1),
    "threshold": lambda x: F.threshold(x, 0.2, 0.0),
    "power": lambda x: x**2 + x.pow(0.5),
    "to": lambda x: x.double().float(),
    "half": lambda x: x.to(torch.bfloat16).relu().float(),
    "twice": lambda x: x * 2 / 3 - x,
    "sum of list": lambda x: sum([x, x], torch.zeros(())),
    "sum from zero": lambda x: 0 + x,
    "rsub": lambda x: torch.rsub(x, x, alpha=2),
    "where": lambda x: torch.where(x > 0.5, x, torch.zeros(())),
    "masked fill": lambda x: x.masked_fill(x > 0.5, 0.0),
    "quotient": lambda x: x / (1 + x),
    "in place": lambda x: x.clone().relu_().mul_(3).add_(x).div_(2).sub_(x * 3),
    "slice in place": lambda x: _add_shifted(x),
    "view in place": lambda x: _write_columns(x),
    "squeeze in place": lambda x: (x * 1).unsqueeze_(0).squeeze_(0).transpose_(0, 1),
    "lerp": lambda x: torch.lerp(x, x * 2, 0.3),
    "addcmul": lambda x: torch.addcmul(x, x, x, value=2),
    "hypot": lambda x: torch.hypot(x, x),
    "complex": lambda x: torch.view_as_real(torch.complex(x, x).conj() * 2)[..., 0],
}

MOVES: dict[str, Function] = {
    "cat": lambda x: torch.cat([x, torch.zeros_like(x), x.flip(1)], 1),
    "cat rows": lambda x: torch.cat([x, x], 0),
    "stack": lambda x: torch.stack([x, x * 2], 1),
    "split": lambda x: torch.cat(x.split([1, 3], 1)[::-1], 1),
    "chunk": lambda x: x.chunk(2, 1)[1] + x.chunk(2, 1)[0],
    "unbind": lambda x: x.unbind(1)[2],
    "flatten": lambda x: x.flatten(1),
    "transpose": lambda x: x.transpose(0, 1).contiguous().view(-1),
    "permute": lambda x: x.permute(1, 0, *range(2, x.dim())).reshape(-1, 2),
    "expand": lambda x: x[:, :1].expand(x.shape) * 1,
    "repeat": lambda x: x.repeat(2, *[1] * (x.dim() - 1)),
    "repeat interleave": lambda x: x.repeat_interleave(2, 1),
    "roll": lambda x: x.roll(1, 1) + x.roll(-1, 0),
    "flip": lambda x: x.flip((0, 1)),
    "pad": lambda x: F.pad(x, (1, 2)),
    "pad front": lambda x: F.pad(x, (*[0, 0] * (x.dim() - 2), 1, 1)),
    "crop": lambda x: F.pad(x, (-1, 0)),
    "index": lambda x: x[:, torch.tensor([2, 0, 1])],
    "index pairs": lambda x: x[torch.tensor([0, 1]), torch.tensor([3, 0])],
    "index by data": lambda x: x[:, x.flatten(1).argsort(1)[0, :4] % 4],
    "mask by data": lambda x: x[x > 0.6],
    "gather": lambda x: x.gather(1, torch.zeros(x.shape, dtype=torch.long) + 2),
    "gather by data": lambda x: x.gather(1, x.argsort(1)),
    "select": lambda x: x.index_select(1, torch.tensor([3, 1])),
    "tril": lambda x: x.tril(),
    "diagonal": lambda x: x.diagonal(0, 0, 1) * 1,
    "as strided": lambda x: x.contiguous().as_strided((3, 2), (2, 1)) * 1,
    "unfold": lambda x: x.unfold(1, 2, 1) * 1,
    "shuffle": lambda x: x.view(x.shape[0], 2, 2, *x.shape[2:]).transpose(1, 2).flatten(1, 2) * 1,
    "index add": lambda x: torch.zeros_like(x).index_add_(1, torch.tensor([1, 0, 2, 3]), x),
    "slice scatter": lambda x: torch.slice_scatter(x, x[:, :2] * 2, 1, 1, 3),
    "select scatter": lambda x: torch.select_scatter(x, x[:, 0] * 2, 1, 1),
    "copy": lambda x: torch.zeros_like(x).copy_(x[:1]),
    "channels last": lambda x: x.transpose(1, -1).contiguous().transpose(1, -1).relu(),
}

REDUCTIONS: dict[str, Function] = {
    "sum": lambda x: x.sum(1),
    "sum all": lambda x: x.sum(),
    "mean kept": lambda x: x.mean(-1, keepdim=True),
    "amax": lambda x: x.amax((0, -1)),
    "amin": lambda x: x.amin(1),
    "max": lambda x: x.max(1)[0] + x.max(),
    "min": lambda x: x.min(1, keepdim=True)[0],
    "norm": lambda x: x.norm(dim=1) + x.norm(),
    "vector norm": lambda x: torch.linalg.vector_norm(x, 1, dim=1),
    "std": lambda x: x.std(1) + x.var(1, keepdim=True).squeeze(1),
    "median": lambda x: x.median(1)[0],
    "cumsum": lambda x: x.cumsum(1),
    "sort": lambda x: x.sort(1)[0],
    "topk": lambda x: x.topk(2, 1)[0],
    "maximum": lambda x: torch.maximum(x, x.flip(1)) + torch.minimum(x, x.roll(1, 1)),
    "nansum": lambda x: x.nansum(1),
}

PLANES: dict[str, Function] = {
    "avg pool": lambda x: F.avg_pool2d(x, 2, padding=1),
    "max pool": lambda x: F.max_pool2d(x, 3, stride=1, padding=1, ceil_mode=True),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, (3, 1)),
    "adaptive one": lambda x: F.adaptive_avg_pool2d(x, 1),
    "adaptive max": lambda x: F.adaptive_max_pool2d(x, 2),
    "bilinear": lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear"),
    "bicubic": lambda x: F.interpolate(x, size=(5, 7), mode="bicubic"),
    "antialias": lambda x: F.interpolate(x, size=(3, 3), mode="bilinear", antialias=True),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "nearest exact": lambda x: F.interpolate(x, size=(3, 5), mode="nearest-exact"),
    "pool 1d": lambda x: F.avg_pool1d(x[0], 2) + F.max_pool1d(x[0], 2) + F.adaptive_avg_pool1d(x[0], 2),
    "linear 1d": lambda x: F.interpolate(x[0], size=7, mode="linear"),
    "nearest 1d": lambda x: F.interpolate(x[0], size=7),
    "pixel shuffle": lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2),
    "channel shuffle": lambda x: F.channel_shuffle(x, 2),
    "im2col": lambda x: F.unfold(x, 2, padding=1),
    "reflect": lambda x: F.pad(x, (1, 1, 2, 1), mode="reflect"),
    "replicate": lambda x: F.pad(x, (1, 1, 2, 1), mode="replicate"),
    "rot90": lambda x: torch.rot90(x, 1, (2, 3)),
    "attention": lambda x: F.scaled_dot_product_attention(x * 2, x * 3, x),
    "attention mask": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "einsum": lambda x: torch.einsum("bhid,bhjd->bhij", x, x),
    "scores": lambda x: torch.einsum("bhij,bhjd->bhid", (x @ x.mT).softmax(-1), x),
}

VOLUMES: dict[str, Function] = {
    "avg pool": lambda x: F.avg_pool3d(x, 2, padding=1),
    "max pool": lambda x: F.max_pool3d(x, (1, 3, 2), stride=1, padding=(0, 1, 1)),
    "adaptive": lambda x: F.adaptive_avg_pool3d(x, (1, 3, 1)) + F.adaptive_avg_pool3d(x, 1),
    "adaptive max": lambda x: F.adaptive_max_pool3d(x, (1, 2, 2)),
    "trilinear": lambda x: F.interpolate(x, scale_factor=1.5, mode="trilinear"),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "nearest exact": lambda x: F.interpolate(x, size=(3, 5, 1), mode="nearest-exact"),
    "reflect": lambda x: F.pad(x, (1, 1, 2, 1, 1, 0), mode="reflect"),
    "replicate": lambda x: F.pad(x, (1, 1, 2, 1, 0, 3), mode="replicate"),
    "circular": lambda x: F.pad(x, (1, 1, 2, 1, 0, 1), mode="circular"),
    "nearest exact 1d": lambda x: F.interpolate(x[0, 0], size=5, mode="nearest-exact"),
}

PAIRS: dict[str, Function] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - 3 * y,
    "mul": lambda x, y: x * y,
    "mul row": lambda x, y: x * y[:1] * x[:, :1],
    "div": lambda x, y: x / (y + 1),
    "mm": lambda x, y: x @ y.t(),
    "bmm": lambda x, y: torch.bmm(x[None], y.t()[None]),
    "addmm": lambda x, y: torch.addmm(x[:, :3], x, y.t()),
    "baddbmm": lambda x, y: torch.baddbmm(x[None, :, :3], x[None], y.t()[None]),
    "addcmul": lambda x, y: torch.addcmul(x, y, x),
    "where": lambda x, y: torch.where(x > y, x, y),
    "copy": lambda x, y: x.clone().copy_(y),
    "cat": lambda x, y: torch.cat([x, y], 1),
    "gate": lambda x, y: x * torch.sigmoid(y),
    "add in place": lambda x, y: x.clone().add_(y[0]),
    "masked fill": lambda x, y: x.masked_fill(x > 0.5, y[0, 0]),
}

NEVER_ZERO: dict[str, Function] = {
    "exp": torch.exp,
    "cos": torch.cos,
    "sigmoid": torch.sigmoid,
    "softmax": lambda x: x.softmax(1),
    "layer norm": lambda x: F.layer_norm(x, x.shape[1:], torch.ones(x.shape[1:]), torch.ones(x.shape[1:])),
    "add one": lambda x: x + 1.0,
    "clamp": lambda x: x.clamp(min=0.1),
    "power zero": lambda x: x**0 + x**-1.0,
    "power of": lambda x: 2.0**x,
    "reciprocal": lambda x: 1 / (x + 1),
    "pad one": lambda x: F.pad(x, (1, 1), value=1.0)[..., -1],
    "fill": lambda x: x.clone().fill_(2.0),
    "random": lambda x: x.clone().uniform_(1, 2),
    "threshold": lambda x: F.threshold(x, 0.2, 1.0),
    "hardsigmoid": F.hardsigmoid,
    "softplus": F.softplus,
    "zero by zero": lambda x: (x / x).nan_to_num(1.0),
    "one hot": lambda x: F.one_hot(x.argmax(1), 4) + 1.0,
    "logsumexp": lambda x: x.logsumexp(1),
    "where one": lambda x: torch.where(x > 0.5, x, torch.ones(())),
    "out": lambda x: torch.add(x, 1.0, out=torch.zeros_like(x)),
}


def _add_shifted(x: Tensor) -> Tensor:
    out = x * 1
    out[:, 1:] += x[:, :-1]
    out[:, 0].zero_()
    return out


def _write_columns(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[:, ::2] = x[:, 1::2]
    out.transpose(0, 1)[1].copy_(x[:, 0])
    return out
