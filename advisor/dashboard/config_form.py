"""Form fields made from ``TrainerConfig``: its bounds, its choices, its help. For all pages.

A number is typed as text, so that 2e-4 works; what is wrong with it the configuration says.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import streamlit as st

from trainer.config import TrainerConfig, allowed_range, choices_of, depends_on, kind_of


def config_fields(
    names: Sequence[str],
    defaults: Mapping[str, Any],
    *,
    key: str,
    columns: int,
    hints: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Draw one field per name and return what was entered; an empty text counts as not given.

    ``hints`` are shown in fields that are empty.
    """
    entered: dict[str, Any] = {}
    places = st.columns(columns)
    for i, name in enumerate(names):
        with places[i % columns]:
            entered[name] = _field(name, defaults.get(name), f"{key}-{name}", hints.get(name))
    return entered


def linked_fields(
    names: Sequence[str],
    base: Mapping[str, Any],
    *,
    columns: int,
    hints: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Draw one empty field per name, bound to the page's address; return what was filled in.

    An empty field shows, faintly, the value of ``base`` that then holds, or its hint.
    """
    entered: dict[str, Any] = {}
    places = st.columns(columns)
    for i, name in enumerate(names):
        with places[i % columns]:
            field = TrainerConfig.model_fields[name]
            label, words = label_and_help(name)
            hint = hints.get(name) or _typed(base.get(name)) or "default"
            if choices := choices_of(field):
                entered[name] = st.selectbox(
                    label,
                    choices,
                    index=None,
                    placeholder=hint,
                    help=words,
                    key=name,
                    bind="query-params",
                )
            else:
                text = st.text_input(
                    label, placeholder=hint, help=words, key=name, bind="query-params"
                )
                entered[name] = text.strip() or None
    return {name: value for name, value in entered.items() if value is not None}


def label_and_help(name: str) -> tuple[str, str]:
    """Return how a setting is called on screen, and what it is with its allowed range."""
    words = f"{TrainerConfig.model_fields[name].description}. Allowed: {allowed_range(name)}."
    return name.replace("_", " "), words


def _field(name: str, default: Any, key: str, hint: str | None) -> Any:
    field = TrainerConfig.model_fields[name]
    label, words = label_and_help(name)
    if default is None and not field.is_required():
        other = depends_on(name)
        default, hint = (field.default, hint) if other is None else (None, f"as {other} has it")
    if choices := choices_of(field):
        index = choices.index(default) if default in choices else 0
        return st.selectbox(label, choices, index=index, help=words, key=key)
    if kind_of(field) is bool:
        return st.checkbox(label, value=bool(default), help=words, key=key)
    return (
        st.text_input(label, value=_typed(default), help=words, key=key, placeholder=hint).strip()
        or None
    )


def _typed(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
