"""Mistakes in a spec's blocks for callbacks, and their messages."""

from __future__ import annotations

from tests.support.bad_specs import SpecCase

STRATEGIES = (
    "'add_all', 'add_latest', 'add_average', 'quadratic_decrease', 'cubic_decrease', 'factorial_decrease', "
    "'linear_decrease', 'exponential_decrease', 'log_decrease'"
)
MODES = "'fg_adahat', 'adahat', 'adahat_no_sum', 'adahat_no_reg', 'hat', 'hat_const_1', 'hat_random', 'hat_const_alpha'"
MEASURES = "activation_abs, input_weight_abs_sum, input_weight_abs_sum_x_activation_abs"
"""The only measures that these tests register."""

CALLBACK_SPECS: list[SpecCase] = [
    SpecCase(
        "misspelt_measure",
        {"importance": {"type": "activations_abs"}},
        (
            "importance.type: expected the name of a measure, got 'activations_abs'. Did you mean "
            f"'activation_abs'? Registered: {MEASURES}.",
        ),
    ),
    SpecCase(
        "measure_by_its_short_name",
        {"importance": {"type": "ICU"}},
        (f"importance.type: expected the name of a measure, got 'ICU'. Registered: {MEASURES}.",),
    ),
    SpecCase("measure_is_a_number", {"importance": {"type": 6}}, ("importance.type: expected a name as text, got 6.",)),
    SpecCase(
        "measure_without_parameters",
        {"importance": {"type": "activation_abs", "params": {"n_steps": 5}}},
        (
            "importance.params: expected parameters of 'activation_abs', got {'n_steps': 5}. Expected no "
            "parameters, got ['n_steps'].",
        ),
    ),
    SpecCase(
        "parameter_is_nan",
        {"importance": {"params": {"baselines": [0.0, {"x": float("nan")}]}}},
        ("importance.params: expected finite numbers, got baselines[1].x = nan.",),
    ),
    SpecCase(
        "parameters_are_a_list",
        {"importance": {"params": ["n_steps"]}},
        ("importance.params: expected a mapping from parameter names to values, got ['n_steps'].",),
    ),
    SpecCase(
        "parameter_name_is_a_number",
        {"importance": {"params": {5: "n_steps"}}},
        ("importance.params: expected text as a key, got 5.",),
    ),
    SpecCase(
        "gradient",
        {"importance": {"gradient": "row"}},
        ("importance.gradient: expected one of 'raw', 'adjusted', got 'row'. Did you mean 'raw'?",),
    ),
    SpecCase(
        "every_zero_steps",
        {"importance": {"every_n_steps": 0}},
        ("importance.every_n_steps: expected a whole number >= 1, got 0.",),
    ),
    SpecCase(
        "every_half_step",
        {"importance": {"every_n_steps": 0.5}},
        ("importance.every_n_steps: expected a whole number >= 1, got 0.5.",),
    ),
    SpecCase(
        "filter_as_text",
        {"importance": {"filter_unmasked": "yes"}},
        ("importance.filter_unmasked: expected true or false, got 'yes'. Write it without quotes.",),
    ),
    SpecCase(
        "filter_as_number",
        {"importance": {"filter_unmasked": 1}},
        ("importance.filter_unmasked: expected true or false, got 1.",),
    ),
    SpecCase(
        "strategy_missing", {"summation": {}}, (f"summation.strategy: expected one of {STRATEGIES}, got nothing.",)
    ),
    SpecCase(
        "strategy_misspelt",
        {"summation": {"strategy": "linear-decreese"}},
        (f"summation.strategy: expected one of {STRATEGIES}, got 'linear-decreese'. Did you mean 'linear_decrease'?",),
    ),
    SpecCase(
        "strategy_as_text",
        {"summation": "add_all"},
        ("summation: expected a mapping with the key 'strategy', got 'add_all'. Write {strategy: add_all}.",),
    ),
    SpecCase(
        "linear_step_missing",
        {"summation": {"strategy": "linear_decrease"}},
        (
            "summation.linear_step: expected a finite number > 0, got nothing. Needed by strategy "
            "'linear_decrease': How much the weight grows per task; no unit, > 0. FG-AdaHAT Eq. 4.",
        ),
    ),
    SpecCase(
        "linear_step_zero",
        {"summation": {"strategy": "linear_decrease", "linear_step": 0}},
        ("summation.linear_step: expected a finite number > 0, got 0.",),
    ),
    SpecCase(
        "exponential_rate_missing",
        {"summation": {"strategy": "exponential_decrease"}},
        (
            "summation.exponential_rate: expected a finite number > 1, got nothing. Needed by strategy "
            "'exponential_decrease': Factor per task; no unit, > 1. FG-AdaHAT Eq. 4.",
        ),
    ),
    SpecCase(
        "exponential_rate_one",
        {"summation": {"strategy": "exponential_decrease", "exponential_rate": 1}},
        ("summation.exponential_rate: expected a finite number > 1, got 1.",),
    ),
    SpecCase(
        "log_base_missing",
        {"summation": {"strategy": "log_decrease"}},
        (
            "summation.log_base: expected a finite number > 1, got nothing. Needed by strategy 'log_decrease': "
            "Base of the logarithm; no unit, > 1. FG-AdaHAT Eq. 4.",
        ),
    ),
    SpecCase(
        "log_base_one",
        {"summation": {"strategy": "log_decrease", "log_base": 1.0}},
        ("summation.log_base: expected a finite number > 1, got 1.0.",),
    ),
    SpecCase(
        "step_with_another_strategy",
        {"summation": {"strategy": "add_all", "linear_step": 1.0}},
        (
            "summation.linear_step: expected no key but 'strategy', got 'linear_step'. It belongs to strategy "
            "'linear_decrease'.",
        ),
    ),
    SpecCase(
        "mode_missing",
        {"adjustment": {"intensity": 1e-6}},
        (f"adjustment.mode: expected one of {MODES}, got nothing.",),
    ),
    SpecCase(
        "mode_key_misspelt",
        {"adjustment": {"mood": "hat"}},
        (f"adjustment.mode: expected one of {MODES}, got nothing. Rename the key 'mood' to 'mode'.",),
    ),
    SpecCase(
        "mode_misspelt",
        {"adjustment": {"mode": "FG-AdaHAT"}},
        (f"adjustment.mode: expected one of {MODES}, got 'FG-AdaHAT'. Did you mean 'fg_adahat'?",),
    ),
    SpecCase(
        "mode_is_a_list",
        {"adjustment": {"mode": ["hat"]}},
        (f"adjustment.mode: expected one of {MODES}, got ['hat'].",),
    ),
    SpecCase(
        "mode_as_misspelt_text",
        {"adjustment": "ada_hat"},
        ("adjustment: expected a mapping with the key 'mode', got 'ada_hat'. Did you mean 'adahat'?",),
    ),
    SpecCase(
        "alpha_missing",
        {"adjustment": {"mode": "hat_const_alpha"}},
        (
            "adjustment.alpha: expected a finite number >= 0, got nothing. Needed by mode 'hat_const_alpha': Rate "
            "on protected weights; no unit, 0 is HAT. AdaHAT Sec. 4.",
        ),
    ),
    SpecCase(
        "alpha_with_another_mode",
        {"adjustment": {"mode": "hat", "alpha": 0.1}},
        (
            "adjustment.alpha: expected a key among 'mode', 'apply_to', got 'alpha'. It belongs to mode "
            "'hat_const_alpha'.",
        ),
    ),
    SpecCase(
        "intensity_zero",
        {"adjustment": {"mode": "fg_adahat", "intensity": 0}},
        ("adjustment.intensity: expected a finite number > 0, got 0.",),
    ),
    SpecCase(
        "intensity_as_text",
        {"adjustment": {"mode": "adahat", "intensity": "1e-6"}},
        ("adjustment.intensity: expected a finite number > 0, got '1e-6'. Write the number without quotes.",),
    ),
    SpecCase(
        "scheduler",
        {"adjustment": {"mode": "fg_adahat", "scheduler": "linear"}},
        (
            "adjustment.scheduler: expected one of 'linear_sparsity_reg', 'sparsity_reg', "
            "'summative_mask_sparsity_reg', got 'linear'. Did you mean 'linear_sparsity_reg'?",
        ),
    ),
    SpecCase(
        "aggregation",
        {"adjustment": {"mode": "fg_adahat", "aggregation": "avg"}},
        ("adjustment.aggregation: expected one of 'min', 'max', 'mean', got 'avg'.",),
    ),
    SpecCase(
        "base_linear_negative",
        {"adjustment": {"mode": "fg_adahat", "base_linear": -1}},
        ("adjustment.base_linear: expected a finite number >= 0, got -1.",),
    ),
    SpecCase(
        "epsilon_zero",
        {"adjustment": {"mode": "adahat_no_sum", "epsilon": 0.0}},
        ("adjustment.epsilon: expected a finite number > 0, got 0.0.",),
    ),
    SpecCase(
        "negative_seed",
        {"adjustment": {"mode": "hat_random", "seed": -1}},
        ("adjustment.seed: expected a whole number from 0 to 9223372036854775807, got -1.",),
    ),
    SpecCase(
        "apply_to",
        {"adjustment": {"mode": "hat", "apply_to": "updates"}},
        ("adjustment.apply_to: expected one of 'update', 'gradient', got 'updates'. Did you mean 'update'?",),
    ),
]
