"""Mistakes in a spec, and their messages."""

from __future__ import annotations

from dataclasses import dataclass

from fgadahat_hooks.spec.attach_spec import AttachSpec, GatesSpec

SPEC_KEYS = (
    "'version', 'gates', 'heads', 'plasticity', 'norms', 'rest', 'regularization', 'importance', 'summation', "
    "'adjustment'"
)
GATES_KEYS = (
    "'targets', 'exclude', 'position', 's_max', 'annealing_power', 'annealing', 'settle', 'clamp_threshold', "
    "'embedding_clamp', 'init', 'choose', 'tasks', 'gains'"
)
IMPORTANCE_KEYS = (
    "'type', 'params', 'gradient', 'every_n_steps', 'budget', 'max_samples', 'filter_unmasked', "
    "'multiply_training_mask'"
)
RULE = (
    "A pattern is an exact dotted name ('layer1.0.conv1'), a glob ('layer3.*.conv?'; * and ? stay within one "
    "dotted part, ** crosses parts), 're:' and a regular expression that fits the whole name, or a shorthand (all, "
    "all-linear, all-conv, all-embedding)."
)


@dataclass(frozen=True)
class SpecCase:
    """A spec as a user writes it, and every problem that should be reported."""

    name: str
    given: object
    problems: tuple[str, ...]


SPECS: list[SpecCase] = [
    SpecCase(
        "unknown_key", {"gate": {}}, (f"gate: expected a key among {SPEC_KEYS}, got 'gate'. Did you mean 'gates'?",)
    ),
    SpecCase(
        "key_of_a_block",
        {"s_max": 400},
        (f"s_max: expected a key among {SPEC_KEYS}, got 's_max'. Write it as 'gates.s_max'.",),
    ),
    SpecCase(
        "key_of_several_blocks",
        {"mode": "hat"},
        (
            f"mode: expected a key among {SPEC_KEYS}, got 'mode'. Write it as 'heads.mode' or "
            "'regularization.mode' or 'adjustment.mode'.",
        ),
    ),
    SpecCase(
        "key_of_another_block",
        {"heads": {"s_max": 400}},
        ("heads.s_max: expected a key among 'names', 'mode', got 's_max'. Write it as 'gates.s_max'.",),
    ),
    SpecCase(
        "nothing_like_it",
        {"learning_rate": 0.1},
        (f"learning_rate: expected a key among {SPEC_KEYS}, got 'learning_rate'.",),
    ),
    SpecCase("key_is_a_number", {1: 2}, ("[1]: expected text as a key, got 1.",)),
    SpecCase("key_in_a_block_is_a_number", {"gates": {1: 2}}, ("gates[1]: expected text as a key, got 1.",)),
    SpecCase("version_of_tomorrow", {"version": 2}, ("version: expected 1, the version this release reads, got 2.",)),
    SpecCase("version_as_text", {"version": "1"}, ("version: expected 1, the version this release reads, got '1'.",)),
    SpecCase(
        "block_is_empty",
        {"gates": None},
        (f"gates: expected a mapping with keys among {GATES_KEYS}, got None. Leave the key out to use the default.",),
    ),
    SpecCase(
        "block_is_a_list",
        {"heads": ["fc"]},
        ("heads: expected a mapping with keys among 'names', 'mode', got ['fc'].",),
    ),
    SpecCase(
        "block_is_text",
        {"importance": "activation_abs"},
        (f"importance: expected a mapping with keys among {IMPORTANCE_KEYS}, got 'activation_abs'.",),
    ),
    SpecCase(
        "misspelt_key",
        {"gates": {"tragets": "all"}},
        (f"gates.tragets: expected a key among {GATES_KEYS}, got 'tragets'. Did you mean 'targets'?",),
    ),
    SpecCase(
        "no_targets",
        {"gates": {"targets": []}},
        ("gates.targets: expected at least one, got an empty list. Leave the key out to use the default.",),
    ),
    SpecCase(
        "target_is_a_number",
        {"gates": {"targets": 3}},
        ("gates.targets: expected a pattern or a list of patterns, got 3.",),
    ),
    SpecCase(
        "one_target_is_a_number",
        {"gates": {"targets": ["all", 3]}},
        ("gates.targets[1]: expected a pattern as text, got 3.",),
    ),
    SpecCase(
        "target_is_empty",
        {"gates": {"targets": ""}},
        (f"gates.targets[0]: expected a non-empty pattern without spaces around it, got ''. {RULE}",),
    ),
    SpecCase(
        "target_with_space",
        {"gates": {"targets": ["all", " fc"]}},
        (f"gates.targets[1]: expected a non-empty pattern without spaces around it, got ' fc'. {RULE}",),
    ),
    SpecCase(
        "target_with_bad_regex",
        {"gates": {"targets": "re:(conv"}},
        (
            "gates.targets[0]: expected a valid regular expression after 're:', got 're:(conv' (missing ), "
            f"unterminated subpattern). {RULE}",
        ),
    ),
    SpecCase(
        "target_with_empty_regex",
        {"gates": {"targets": "re:"}},
        (f"gates.targets[0]: expected a non-empty pattern without spaces around it, got 're:'. {RULE}",),
    ),
    SpecCase(
        "target_with_open_bracket",
        {"gates": {"targets": "layer[1"}},
        (f"gates.targets[0]: expected a valid glob, got 'layer[1' ('[' needs letters and a ']'). {RULE}",),
    ),
    SpecCase(
        "exclude_with_bad_range",
        {"gates": {"exclude": "layer[9-1]"}},
        (f"gates.exclude[0]: expected a valid glob, got 'layer[9-1]' (bad character range 9-1). {RULE}",),
    ),
    SpecCase(
        "position",
        {"gates": {"position": "after_norm"}},
        ("gates.position: expected one of 'auto', 'output', got 'after_norm'.",),
    ),
    SpecCase("s_max_zero", {"gates": {"s_max": 0}}, ("gates.s_max: expected a finite number > 0, got 0.",)),
    SpecCase(
        "s_max_as_text",
        {"gates": {"s_max": "400"}},
        ("gates.s_max: expected a finite number > 0, got '400'. Write the number without quotes.",),
    ),
    SpecCase("s_max_is_true", {"gates": {"s_max": True}}, ("gates.s_max: expected a finite number > 0, got True.",)),
    SpecCase(
        "s_max_is_nothing",
        {"gates": {"s_max": None}},
        ("gates.s_max: expected a finite number > 0, got None. Leave the key out to use the default.",),
    ),
    SpecCase(
        "clamp_is_infinite",
        {"gates": {"clamp_threshold": float("inf")}},
        ("gates.clamp_threshold: expected a finite number > 0, got inf.",),
    ),
    SpecCase(
        "embedding_clamp_is_nan",
        {"gates": {"embedding_clamp": float("nan")}},
        ("gates.embedding_clamp: expected a finite number > 0, got nan.",),
    ),
    SpecCase(
        "init_of_the_wrong_sign",
        {"gates": {"init": "U-1"}},
        ("gates.init: expected one of 'N01', 'U-11', 'U01', 'U-10', 'last', got 'U-1'. Did you mean 'U-11'?",),
    ),
    SpecCase(
        "heads_mode",
        {"heads": {"mode": "share"}},
        ("heads.mode: expected one of 'per_task', 'shared', got 'share'. Did you mean 'shared'?",),
    ),
    SpecCase(
        "head_without_letters", {"heads": {"names": ["fc", ""]}}, ("heads.names[1]: expected a name as text, got ''.",)
    ),
    SpecCase(
        "norms",
        {"norms": "frozen"},
        ("norms: expected one of 'per_task', 'freeze', 'share', got 'frozen'. Did you mean 'freeze'?",),
    ),
    SpecCase("rest", {"rest": False}, ("rest: expected one of 'freeze', 'per_task', 'share', got False.",)),
    SpecCase(
        "negative_factor",
        {"regularization": {"factor": -0.75}},
        ("regularization.factor: expected a finite number >= 0, got -0.75.",),
    ),
    SpecCase(
        "regularization_mode",
        {"regularization": {"mode": "Orignal"}},
        ("regularization.mode: expected one of 'original', 'cross', got 'Orignal'. Did you mean 'original'?",),
    ),
    SpecCase(
        "regularization_budget",
        {"regularization": {"budget": 1.5}},
        ("regularization.budget: expected a finite number from 0 to 1, got 1.5.",),
    ),
    SpecCase(
        "a_path",
        "spec.yaml",
        ("expected a mapping or AttachSpec, got 'spec.yaml'. Read a file with fgadahat_hooks.load_spec first.",),
    ),
    SpecCase("nothing", None, ("expected a mapping or AttachSpec, got None.",)),
    SpecCase(
        "the_class",
        AttachSpec,
        (
            "expected a mapping or AttachSpec, got <class 'fgadahat_hooks.spec.attach_spec.AttachSpec'>. Write "
            "AttachSpec(), with the brackets.",
        ),
    ),
    SpecCase(
        "another_block",
        GatesSpec(),
        ("expected a mapping or AttachSpec, got GatesSpec(targets=('all',), exclude=(), position='auto', s_m....",),
    ),
    SpecCase(
        "all_at_once",
        {
            "gates": {"s_max": -1, "inti": "N01"},
            "norm": "share",
            "summation": {"strategy": "log_decrease", "log_base": 0.5},
        },
        (
            "gates.s_max: expected a finite number > 0, got -1.",
            f"gates.inti: expected a key among {GATES_KEYS}, got 'inti'. Did you mean 'init'?",
            "summation.log_base: expected a finite number > 1, got 0.5.",
            f"norm: expected a key among {SPEC_KEYS}, got 'norm'. Did you mean 'norms'?",
        ),
    ),
]
