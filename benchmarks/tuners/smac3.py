"""SMAC3: Bayesian optimisation with a random forest, by its ask-and-tell interface.

Lindauer et al. 2022, "SMAC3: A versatile Bayesian optimization package for hyperparameter
optimization", https://arxiv.org/abs/2109.09831; https://automl.github.io/SMAC3/.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backend.domain.knobs import Knob, KnobConfig, KnobSpace, KnobValue
from benchmarks.tuners.peer import Interval, Peer, State, required

DESIGN_SIZE = 10
"""Sobol points before the model. SMAC3's own ten a knob are made for thousands of evaluations;
ten is what the published comparison of knob tuners gives it (Zhang et al. 2022, VLDB 15(9))."""
DESIGN_SHARE = 0.25
"""At most this share of the budget is the initial design: SMAC3's own bound."""


class Smac3(Peer):
    """The facade for hyper-parameter optimisation with its own settings, but a smaller design.

    Args:
        budget: evaluations planned.
        retrain_after: evaluations between two fits of the model; 8 is SMAC3's own.
    """

    def __init__(
        self,
        space: KnobSpace,
        seed: int,
        priors: Sequence[Mapping[str, KnobValue]] = (),
        *,
        budget: int = 200,
        retrain_after: int = 8,
    ) -> None:
        super().__init__(space, priors)
        self._space_module = required("ConfigSpace")
        facade = required("smac.facade.hyperparameter_optimization_facade")
        runs = required("smac.runhistory")
        self._trial_info, self._trial_value = runs.TrialInfo, runs.TrialValue
        logging.getLogger("smac").setLevel(logging.CRITICAL)
        self._rng = np.random.default_rng(seed)
        self._configspace = self._space_module.ConfigurationSpace(seed=seed)
        for knob in space:
            self._configspace.add(self._hyperparameter(knob))
        method = facade.HyperparameterOptimizationFacade
        # The facade writes its settings at once, and nothing later: results are not saved.
        with tempfile.TemporaryDirectory(prefix="smac3-") as folder:
            scenario = required("smac.scenario").Scenario(
                self._configspace,
                deterministic=True,
                n_trials=max(budget, 2),
                seed=seed,
                output_directory=Path(folder),
            )
            self._smac = method(
                scenario,
                initial_design=method.get_initial_design(
                    scenario,
                    n_configs=max(1, min(DESIGN_SIZE, int(DESIGN_SHARE * budget))),
                    max_ratio=1.0,
                ),
                config_selector=method.get_config_selector(scenario, retrain_after=retrain_after),
                logging_level=False,
                overwrite=True,
            )
        self._parallel_config = required("joblib").parallel_config
        self._exhausted = required("smac.main.exceptions").ConfigurationSpaceExhaustedException
        self._open: dict[KnobConfig, Any] = {}
        self._run_seed = 0

    def _hyperparameter(self, knob: Knob) -> Any:
        module, default = self._space_module, self.defaults[knob.name]
        if knob.kind == "categorical":
            return module.Categorical(knob.name, list(knob.choices), default=default)
        if knob.kind == "boolean":
            return module.Categorical(knob.name, ["off", "on"], default=_switch(default))
        part = Interval.of(knob)
        made = module.Integer if knob.kind == "integer" else module.Float
        return made(
            knob.name, (part.low, part.high), default=part.to_sampler(default), log=part.log
        )

    def propose(self, state: State | None) -> KnobConfig:
        """A point of the initial design, or what the model expects most improvement of."""
        try:
            # Its forest would start a pool of threads at each of thousands of predictions.
            with self._parallel_config(backend="sequential"):
                info = self._smac.ask()
        except (StopIteration, self._exhausted):  # a small space, all of it tried
            return self.space.decode(self._rng.uniform(-1.0, 1.0, self.space.width))
        config = KnobConfig(
            {knob.name: _native(knob, info.config[knob.name]) for knob in self.space}
        )
        self._open[config] = info
        self._run_seed = info.seed
        return config

    def learn(self, config: KnobConfig, objective: float, state: State | None) -> None:
        """Finish the run that asked it, or add one."""
        info = self._open.pop(config, None)
        if info is None:
            values = {knob.name: _sampler_value(knob, config[knob.name]) for knob in self.space}
            info = self._trial_info(
                config=self._space_module.Configuration(self._configspace, values=values),
                seed=self._run_seed,
            )
        self._smac.tell(info, self._trial_value(cost=objective), save=False)


def _switch(value: KnobValue) -> str:
    return "on" if value else "off"


def _native(knob: Knob, value: Any) -> KnobValue:
    numeric = knob.kind in ("integer", "real")
    return Interval.of(knob).to_native(value) if numeric else knob.validate(str(value))


def _sampler_value(knob: Knob, value: KnobValue) -> Any:
    if knob.kind in ("integer", "real"):
        return Interval.of(knob).to_sampler(value)
    return _switch(value) if knob.kind == "boolean" else value
