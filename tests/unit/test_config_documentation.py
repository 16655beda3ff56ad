"""Example and page of the settings: every setting is there and in step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from backend.config import Settings, example_yaml, load_settings
from backend.settings.document import render

ROOT = Path(__file__).resolve().parents[2]


def leaves(
    model: type[BaseModel] = Settings, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every setting with its place."""
    for name, info in model.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from leaves(annotation, (*path, name))
        else:
            yield (*path, name), info


LEAVES = list(leaves())


def test_the_example_equals_the_defaults(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(example_yaml(), encoding="utf-8")
    assert load_settings(path, environ={}) == Settings()


def test_the_example_in_the_repository_is_in_step():
    text = (ROOT / "config.yaml.example").read_text(encoding="utf-8")
    assert text == example_yaml(), "run: python -m backend.config > config.yaml.example"


@pytest.mark.parametrize(("place", "info"), LEAVES, ids=[".".join(place) for place, _ in LEAVES])
def test_every_setting_is_described_and_in_the_example(place, info):
    assert info.description, f"{'.'.join(place)} has no description"
    assert info.description.endswith((".", ")."))
    found = yaml.safe_load(example_yaml())
    for key in place:
        assert key in found
        found = found[key]
    assert f"# {info.description}\n" in example_yaml()


def test_the_settings_that_users_were_promised_exist():
    promised = {
        "database": "host port user password dbname max_connections connection_timeout",
        "paths": "data_dir logs_dir policies_dir telemetry_db",
        "level0.knob": "learning_rate gamma batch_size buffer_size target_update hidden_layers",
        "level0.plan": "learning_rate gamma batch_size buffer_size target_update hidden_layers",
        "level1": "enabled update_interval min_improvement",
        "level2": "enabled evaluation_interval population_size mutation_rate crossover_rate "
        "tournament_size elite_size bounds",
        "safety": "enabled query_timeout memory_limit_gb cpu_limit_percent rollback_threshold "
        "max_consecutive_failures sandbox_enabled",
        "workload": "queries_per_hour data_scale_factor query_distribution parameter_ranges",
        "telemetry": "collection_interval retention_days",
        "dashboard": "enabled host port",
        "logging": "level",
    }
    known = {".".join(place) for place, _ in LEAVES}
    for section, keys in promised.items():
        assert {f"{section}.{key}" for key in keys.split()} <= known


def test_the_page_is_in_step():
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert text == render(), "run: python -m backend.settings.document > docs/configuration.md"


@pytest.mark.parametrize(("place", "info"), LEAVES, ids=[".".join(place) for place, _ in LEAVES])
def test_every_setting_is_on_the_page_with_its_default(place, info):
    (row,) = (line for line in render().splitlines() if line.startswith(f"| `{'.'.join(place)}` |"))
    assert info.description in row
    default = info.get_default(call_default_factory=True)
    if isinstance(default, (bool, int, float)):
        assert f"| `{json.dumps(default)}` |" in row


def test_the_page_tells_the_bounds():
    page = render()
    assert "| `database.port` | `5432` | 1 to 65535 |" in page
    assert "| `level0.knob.gamma` | `0.05` | 0 to below 1 |" in page
    assert "| `level0.knob.buffer_size` | `10000` | 16 to 1000000 |" in page
    assert "`observe`, `advise`, `approve`, `auto`" in page
