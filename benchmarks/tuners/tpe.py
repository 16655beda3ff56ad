"""Optuna's tree-structured Parzen estimator, multivariate, by its ask-and-tell interface.

Bergstra et al. 2011, "Algorithms for hyper-parameter optimization";
https://optuna.readthedocs.io/en/stable/reference/samplers/generated/optuna.samplers.TPESampler.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.domain.knobs import Knob, KnobConfig, KnobSpace, KnobValue
from benchmarks.tuners.peer import Interval, Peer, State, required


class Tpe(Peer):
    """TPE with Optuna's own settings (10 random configurations before the estimator)."""

    def __init__(
        self, space: KnobSpace, seed: int, priors: Sequence[Mapping[str, KnobValue]] = ()
    ) -> None:
        super().__init__(space, priors)
        self._optuna = optuna = required("optuna")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True)
        )
        self._distributions = {knob.name: self._distribution(knob) for knob in space}
        self._open: dict[KnobConfig, Any] = {}

    def _distribution(self, knob: Knob) -> Any:
        distributions = self._optuna.distributions
        if knob.kind == "categorical":
            return distributions.CategoricalDistribution(list(knob.choices))
        if knob.kind == "boolean":
            return distributions.CategoricalDistribution([False, True])
        part = Interval.of(knob)
        if knob.kind == "integer":
            return distributions.IntDistribution(part.low, part.high, log=part.log)
        return distributions.FloatDistribution(part.low, part.high, log=part.log)

    def propose(self, state: State | None) -> KnobConfig:
        """What the estimator likes best of its candidates."""
        trial = self._study.ask(self._distributions)
        values: dict[str, KnobValue] = {}
        for knob in self.space:
            value = trial.params[knob.name]
            numeric = knob.kind in ("integer", "real")
            values[knob.name] = (
                Interval.of(knob).to_native(value) if numeric else knob.validate(value)
            )
        config = KnobConfig(values)
        self._open[config] = trial
        return config

    def learn(self, config: KnobConfig, objective: float, state: State | None) -> None:
        """Finish the trial that asked it, or add one."""
        trial = self._open.pop(config, None)
        if trial is not None:
            self._study.tell(trial, objective)
            return
        params = {
            knob.name: Interval.of(knob).to_sampler(config[knob.name])
            if knob.kind in ("integer", "real")
            else config[knob.name]
            for knob in self.space
        }
        self._study.add_trial(
            self._optuna.trial.create_trial(
                params=params, distributions=self._distributions, value=objective
            )
        )
