"""The whole training of a gated network over several tasks, number by number."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.reference import mask as gate
from tests.reference import network, optimizers, rates, sparsity, summation
from tests.reference.measures import MEASURES, Layer, Reader
from tests.reference.network import Matrix, Parameters
from tests.reference.scale import min_max


@dataclass
class Choices:
    """The settings of one run."""

    mode: str = "fg_adahat"
    alpha: float = 1e-3
    apply_to: str = "update"
    aggregation: str = "min"
    scheduler: str = "linear_sparsity_reg"
    filtered: bool = False
    base_importance: float = 0.01
    base_linear: float = 10.0
    base_mask_sparsity_reg: float = 0.1
    epsilon: float = 0.1
    measure: str = "input_weight_abs_sum_x_activation_abs"
    gradient: str = "raw"
    every: int = 1
    filter_unmasked: bool = True
    multiply_training_mask: bool = True
    strategy: str = "add_all"
    strategy_params: dict[str, float] = field(default_factory=dict)
    factor: float = 0.75
    regularization: str = "original"
    s_max: float = 50.0
    threshold: float = 50.0
    bound: float = 6.0
    optimizer: str = "SGD"
    gate_lr: float = 0.05
    options: optimizers.Options = field(default_factory=lambda: optimizers.Options(0.05))


class Learner:
    """Trains task after task; the caller provides each task's embeddings and head."""

    def __init__(self, choices: Choices, parameters: Parameters) -> None:
        """Take the parameters; there is one gated layer for each embedding."""
        self.choices = choices
        self.parameters = parameters
        self.depth = sum(name.startswith("e") for name in parameters)
        self.masks: list[Matrix] = []
        self.importances: list[Matrix] = []
        self.summed: Matrix = [[0.0] * len(units) for units in self._units()]
        self.begin({})

    def _units(self) -> Matrix:
        return [self.parameters[f"e{i}"][0] for i in range(self.depth)]

    # ------------------------------------------------------------ what earlier tasks left
    @property
    def summative(self) -> Matrix:
        """Return how many finished tasks use each unit."""
        return [
            [float(sum(masks[i][k] for masks in self.masks)) for k in range(len(units))]
            for i, units in enumerate(self._units())
        ]

    @property
    def cumulative(self) -> Matrix:
        """Return 1 for each unit that a finished task uses, else 0."""
        return [[float(count > 0) for count in layer] for layer in self.summative]

    # ------------------------------------------------------------ a task
    def begin(self, fresh: Parameters) -> None:
        """Start a task with its own parameters, an optimizer without state, and no importance."""
        self.parameters.update(fresh)
        self.optimizer_state: dict[str, optimizers.State] = {}
        self.total: Matrix = [[0.0] * len(units) for units in self._units()]
        self.steps = self.measured = 0
        self.scale = self.choices.s_max

    def step(self, x: Matrix, y: list[int], scale: float) -> tuple[float, float]:
        """Train on one batch; return the cross entropy and the regularizer with its factor."""
        c = self.choices
        self.scale = scale
        run = network.forward(self.parameters, self.depth, x, scale)
        loss, logits_gradient = network.cross_entropy(run.logits, y)
        regularizer = c.factor * sparsity.regularization(run.masks, self.cumulative, c.regularization)
        gates = network.Gates(scale, c.s_max, c.threshold)
        grads = network.backward(self.parameters, self.depth, run, logits_gradient, self._regularizer_gradient(), gates)
        rate = self.rates(run.masks)
        if c.gradient == "raw":
            self._measure(run, grads)
        if c.apply_to == "gradient":
            for name in rate:
                grads[name] = times(rate[name], grads[name])
        if c.gradient == "adjusted":
            self._measure(run, grads)
        self._update(grads, rate if c.apply_to == "update" else {})
        return loss, regularizer

    def end(self) -> None:
        """Finish the task."""
        c = self.choices
        masks = [[float(e > 0) for e in units] for units in self._units()]
        importance = [[value / self.measured + c.base_importance for value in layer] for layer in self.total]
        if c.filter_unmasked:
            importance = times(importance, masks)
        self.masks.append(masks)
        self.importances.append(importance)
        self.summed = [
            summation.summed(c.strategy, [task[i] for task in self.importances], **c.strategy_params)
            for i in range(self.depth)
        ]

    # ------------------------------------------------------------ parts of a step
    def _regularizer_gradient(self) -> Matrix:
        """Return the derivative of the regularizer with respect to each mask, times its factor."""
        c, cumulative = self.choices, self.cumulative
        free = sum(1 - m for layer in cumulative for m in layer)
        used = sum(m for layer in cumulative for m in layer)
        gradient = [[(1 - m) / free if free else 0.0 for m in layer] for layer in cumulative]
        if c.regularization == "cross":
            gradient = [
                [(g - (m / used if used else 0.0)) / 2 for g, m in zip(a, b, strict=True)]
                for a, b in zip(gradient, cumulative, strict=True)
            ]
        return [[c.factor * g for g in layer] for layer in gradient]

    def rates(self, masks: Matrix) -> dict[str, Matrix]:
        """Return the rate of every weight and bias of the gated layers."""
        c, found = self.choices, {}
        cumulative, summative = self.cumulative, self.summative
        for i in range(self.depth):
            taken = sparsity.layer_sparsity(masks[i], cumulative[i])
            settings = rates.Settings(
                c.mode,
                c.alpha,
                len(self.masks) + 1,
                taken,
                c.aggregation,
                c.scheduler,
                c.filtered,
                c.base_linear,
                c.base_mask_sparsity_reg,
                c.epsilon,
            )
            own = rates.Units(self.summed[i], cumulative[i], summative[i])
            below = rates.Units(self.summed[i - 1], cumulative[i - 1], summative[i - 1]) if i else None
            found[f"W{i}"] = rates.weight_rates(settings, own, below, len(self.parameters[f"W{i}"][0]))
            found[f"b{i}"] = [rates.bias_rates(settings, own)]
        return found

    def capacity(self, masks: Matrix) -> float:
        """Return the mean rate."""
        every = [a for matrix in self.rates(masks).values() for row in matrix for a in row]
        return sum(every) / len(every)

    def _measure(self, run: network.Pass, grads: Parameters) -> None:
        self.steps += 1
        if (self.steps - 1) % self.choices.every:
            return
        self.measured += 1
        for i in range(self.depth):
            above = f"W{i + 1}" if i + 1 < self.depth else "W"
            pairs = [(k, k) for k in range(len(run.masks[i]))]
            reader = Reader(self.parameters[above], grads[above], 1, pairs)
            layer = Layer(self.parameters[f"W{i}"], grads[f"W{i}"], run.after[i], [reader])
            scaled = min_max(MEASURES[self.choices.measure](layer))
            if self.choices.multiply_training_mask:
                scaled = [a * m for a, m in zip(scaled, run.masks[i], strict=True)]
            self.total[i] = [a + b for a, b in zip(self.total[i], scaled, strict=True)]

    def _update(self, grads: Parameters, rate: dict[str, Matrix]) -> None:
        """Make the optimizer's step, scale each weight's update by its rate, and clamp the embeddings."""
        c = self.choices
        for name, matrix in self.parameters.items():
            is_gate = name.startswith("e")
            options = optimizers.Options(**{**vars(c.options), "lr": c.gate_lr if is_gate else c.options.lr})
            options.weight_decay = 0.0 if is_gate else c.options.weight_decay
            for i, row in enumerate(matrix):
                for k, old in enumerate(row):
                    state = self.optimizer_state.setdefault(f"{name}[{i}][{k}]", {})
                    new = optimizers.RULES[c.optimizer](old, grads[name][i][k], state, options)
                    share = rate[name][i][k] if name in rate else 1.0
                    row[k] = old + share * (new - old)
                    if is_gate:
                        row[k] = min(max(new, -c.bound), c.bound)


def times(a: Matrix, b: Matrix) -> Matrix:
    """Return the products."""
    return [[x * y for x, y in zip(row, other, strict=True)] for row, other in zip(a, b, strict=True)]


def masks_at(learner: Learner) -> Matrix:
    """Return the masks at the scale of the newest batch."""
    return [[gate.sigmoid(learner.scale * e) for e in units] for units in learner._units()]
