"""The base of all sections of settings, and their text as an example file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values are checked and frozen."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_sections_are_defaults(cls, values: Any) -> Any:
        """A section whose keys are all commented out reads as None: that is "all defaults"."""
        if not isinstance(values, dict):
            return values
        return {
            key: value
            for key, value in values.items()
            if value is not None or not is_section(cls.model_fields.get(key))
        }


def is_section(info: FieldInfo | None) -> bool:
    """Whether a field holds a section of settings and not a value."""
    annotation = info.annotation if info is not None else None
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def example_of(model: type[BaseModel]) -> str:
    """The text of an example file: every key of the model, its default and its meaning."""
    lines = [
        "# Settings of the autopilot. Every key is shown with its default; delete what you do not",
        "# change. Order of precedence: this file < environment (AUTOPILOT_<SECTION>__<KEY>) <",
        "# command line. Times are in seconds unless the key says otherwise.",
        "",
    ]
    _describe(model, lines, indent="")
    return "\n".join(lines).rstrip() + "\n"


def _describe(model: type[BaseModel], lines: list[str], indent: str) -> None:
    for name, info in model.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):  # a section
            if not indent:
                lines.append("")
            doc = (annotation.__doc__ or "").strip().splitlines()[0]
            lines.append(f"{indent}# {doc}")
            lines.append(f"{indent}{name}:")
            _describe(annotation, lines, indent + "  ")
            continue
        lines.append(f"{indent}# {info.description}")
        lines.append(f"{indent}{name}: {_yaml_scalar(info.get_default(call_default_factory=True))}")


def _yaml_scalar(value: Any) -> str:
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, dict):
        value = {key: list(item) for key, item in value.items()}
    if isinstance(value, tuple):
        value = list(value)
    return "" if value is None else json.dumps(value)
