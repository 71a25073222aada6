"""DeepLIFT: refusals, cost and side effects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgadahat_hooks import registry
from fgadahat_hooks.errors import BadCallError, CapabilityError
from fgadahat_hooks.importance.attribution.deeplift import DeepliftAbs
from fgadahat_hooks.importance.attribution.deeplift_shap import DeepliftshapAbs
from tests.support.plain_attribution import (
    Between,
    Twice,
    assert_close_by_unit,
    measure_layers,
    open_plain_batch,
    samples_and_baseline,
)
from tests.support.snapshot import differences, snapshot


# ------------------------------------------------------------------ refusals
class Swish(torch.autograd.Function):
    """A function whose operations torch does not show to a mode."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


RNN = nn.LSTM(6, 6, batch_first=True).double().eval().requires_grad_(False)
REFUSED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "cumprod": (lambda z: z.cumprod(1), "the function `cumprod`"),
    "maximum": (lambda z: torch.maximum(z, -z), "the function `maximum`"),
    "sort": (lambda z: z.sort(1).values, "the function `sort`"),
    "comparison": (lambda z: torch.where(z > 0, z, 0.1 * z), "the function `gt`"),
    "sign": (lambda z: z * z.sign(), "the function `sign`"),
    "power of itself": (lambda z: (z.abs() + 1) ** z, "the function `pow`"),
    "cube": (lambda z: torch.einsum("bi,bi,bi->bi", z, z, z), "the function `einsum`"),
    "rounded": (lambda z: z.div(z.abs() + 1, rounding_mode="floor") * z, "the function `div`"),
    "hidden": (Swish.apply, "SwishBackward, read by `flatten`"),
    "by batch": (nn.BatchNorm1d(6, track_running_stats=False).double(), "the function `batch_norm`"),
    "recurrent": (lambda z: RNN(z[:, None])[0], "the function `lstm`"),
    "cosine": (lambda z: F.cosine_similarity(z[:, :3, None], z[:, 3:, None].mT, 2), "the function `cosine_similarity`"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused(name: str) -> None:
    function, what = REFUSED[name]
    model = Between(function, 6, 3 if name == "cosine" else None)
    with open_plain_batch(model, ["fc"], samples_and_baseline()[0]) as opened:
        for measure in (DeepliftAbs(attribute_to="layer"), DeepliftshapAbs(attribute_to="layer")):
            with pytest.raises(CapabilityError, match=what) as caught:
                measure.check(opened)
            assert "Use interactions: 'gradient'" in str(caught.value)
            assert measure.name in str(caught.value)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_scripts_are_refused() -> None:
    """Torch does not show their operations to a mode."""
    with pytest.raises(CapabilityError, match="an operation that torch does not show"):
        measure_layers("deeplift_abs", Between(torch.jit.script(nn.GELU())), ["fc"], samples_and_baseline()[0])


def test_refusal_names_modules_and_all_functions() -> None:
    class Inner(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z.cummax(1).values

    model = nn.Sequential(nn.Linear(5, 6), Inner(), nn.Linear(6, 6), Inner(), nn.Softmin(1), nn.Linear(6, 3)).double()
    with pytest.raises(CapabilityError) as caught:
        measure_layers("deeplift_abs", model, ["0"], samples_and_baseline()[0])
    assert str(caught.value) == (
        "Measure 'deeplift_abs' knows no multiplier of the function `cummax` in module '1' and 1 more; the function "
        "`softmin` in module '4'. Use interactions: 'gradient' if it is a norm or an attention, or else a measure by "
        "gradients: gradient_x_activation_abs, internal_influence_abs."
    )
    with pytest.raises(CapabilityError, match="`maximum` in the model's own forward"):
        measure_layers("deeplift_abs", Between(REFUSED["maximum"][0]), ["fc"], samples_and_baseline()[0])


def test_functions_before_the_layers_need_no_rule() -> None:
    """Functions that do not depend on a layer play no part in the attribution."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    model.register_forward_pre_hook(lambda _, args: (args[0].sort(1).values.cumprod(1),))
    assert bool((measure_layers("deeplift_abs", model, ["1"], samples_and_baseline()[0])["1"] > 0).any())


def test_targets_may_choose_a_class() -> None:
    """The class whose logit is attributed may depend on the logits; it is chosen at the input."""
    from fgadahat_hooks.importance.attribution import AttributionCall, open_attribution_batch
    from tests.support.plain_attribution import layer_site

    model, (x, _) = Between(F.relu), samples_and_baseline()
    target = lambda out: out.gather(1, out.argmax(1, keepdim=True))[:, 0]  # noqa: E731
    with open_attribution_batch(model, {"fc": layer_site(model, "fc")}, AttributionCall((x,), {}, target)) as opened:
        found = DeepliftAbs(attribute_to="layer").compute(opened)
    assert_close_by_unit(found, measure_layers("deeplift_abs", model, ["fc"], x, model(x).argmax(1)), 1e-12)


def test_different_execution_paths() -> None:
    class Diverging(nn.Module):
        def __init__(self, more: bool) -> None:
            super().__init__()
            self.fc, self.head, self.more = nn.Linear(5, 6), nn.Linear(6, 3), more

        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(self.fc(x))
            if (float(x.abs().sum()) > 0) is self.more:
                h = F.gelu(h)
            logits: Tensor = self.head(h)
            return logits

    x = samples_and_baseline()[0].float()
    with pytest.raises(CapabilityError, match="`gelu` follows on the input, `the end` on the baseline"):
        measure_layers("deeplift_abs", Diverging(True), ["fc"], x)
    with pytest.raises(CapabilityError, match="only the baseline's reaches `gelu`"):
        measure_layers("deeplift_abs", Diverging(False), ["fc"], x)


@pytest.mark.parametrize("name", ["deeplift_abs", "deepliftshap_abs"])
def test_integers_have_no_baseline(name: str) -> None:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    with (
        open_plain_batch(model, ["2"], torch.randint(9, (4, 2))) as opened,
        pytest.raises(CapabilityError, match="path of inputs"),
    ):
        registry.measures.get(name)().check(opened)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("deeplift_abs", {"eps": 0, "baselines": "zero"}, "`baselines`.*; expected `eps` to be a finite number > 0"),
        ("deeplift_abs", {"interactions": "none"}, "expected `interactions` to be one of 'exact', 'gradient'"),
        ("deepliftshap_abs", {"n_baselines": 0, "seed": -1}, "`n_baselines`.*>= 1.*; expected `seed`"),
        ("deepliftshap_abs", {"baselines": 0.0}, r"expected `baselines` to be a tensor \(baselines, \*sample\)"),
        ("deepliftshap_abs", {"baselines": torch.zeros(0, 5)}, "got shape"),
    ],
)
def test_bad_parameters(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(BadCallError, match=message):
        registry.measures.get(name)(**params)


def test_baselines_of_another_shape() -> None:
    with pytest.raises(BadCallError, match="Expected `baselines` to be a number or a tensor of shape"):
        measure_layers(
            "deepliftshap_abs", Between(F.relu), ["fc"], samples_and_baseline()[0], baselines=torch.zeros(2, 4)
        )


# ------------------------------------------------------------------ cost and side effects
@pytest.mark.parametrize(("name", "forwards", "backwards"), [("deeplift_abs", 2, 1), ("deepliftshap_abs", 6, 3)])
def test_passes(monkeypatch: pytest.MonkeyPatch, name: str, forwards: int, backwards: int) -> None:
    model, (x, _) = Twice(), samples_and_baseline()
    runs: list[int] = []
    grads: list[int] = []
    grad = torch.autograd.grad
    handle = model.register_forward_hook(lambda *_: runs.append(1))
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: grads.append(1) or grad(*a, **k))  # type: ignore[func-returns-value]
    params: dict[str, Any] = {"n_baselines": 3} if name == "deepliftshap_abs" else {}
    measure_layers(name, model, ["fc"], x, **params)
    handle.remove()
    assert (len(runs), len(grads)) == (forwards, backwards)


class Breaking(nn.Module):
    """Raises before its last layer if `broken` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm, self.drop, self.head = nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 3)
        self.broken = False
        self.fc.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(F.relu(self.norm(self.fc(x)), inplace=True))
        if self.broken:
            raise RuntimeError("broken")
        logits: Tensor = self.head(h)
        return logits


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("name", ["deeplift_abs", "deepliftshap_abs", "lrp_abs"])
def test_nothing_is_left(name: str, broken: bool) -> None:
    model, x = Breaking(), samples_and_baseline()[0].float()
    model.broken = broken
    before, state, data = snapshot(model), torch.get_rng_state(), x.clone()
    try:
        measure_layers(name, model, ["fc"], x)
    except RuntimeError:
        assert broken
    assert differences(before, snapshot(model)) == []
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(x, data)
    assert not x.requires_grad
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True, True, True]
    assert len(torch.overrides._get_current_function_mode_stack()) == 0
