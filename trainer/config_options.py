"""Every field of the configuration as an option of a command line."""

import argparse

from .config import TrainerConfig, allowed_range, checked_config, kind_of


def add_config_options(parser: argparse.ArgumentParser, skip: tuple[str, ...] = ()) -> None:
    """Add one option per field; values stay text, so that pydantic alone judges them."""
    fields = TrainerConfig.model_fields
    for name, field in sorted(fields.items(), key=lambda item: not item[1].is_required()):
        if name in skip:
            continue
        option = f"--{name.replace('_', '-')}"
        default = "" if field.is_required() or field.default is None else f" ({field.default})"
        words = f"{field.description}; {allowed_range(name)}{default}".replace("%", "%%")
        if kind_of(field) is bool:
            parser.add_argument(option, action=argparse.BooleanOptionalAction, help=words)
        else:
            parser.add_argument(option, metavar="X", help=words)


def config_from_options(options: argparse.Namespace) -> TrainerConfig:
    """Read the configuration out of parsed options.

    Raises:
        BadInput: see ``checked_config``.
    """
    return checked_config({n: getattr(options, n, None) for n in TrainerConfig.model_fields})
