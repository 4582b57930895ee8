"""Settings that commands share: those of the mix, and those given as `--set NAME=VALUE`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vmnet_pipeline.params import Params

    _Params = TypeVar("_Params", bound=Params)


def choose_mix(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options `--own-sound` and `--loudness`."""
    loudness = click.option(
        "--loudness", type=float, default=None, help="Loudness of the result in LUFS.  [default: -14]"
    )
    own_sound = click.option(
        "--own-sound",
        type=click.Choice(["duck", "keep", "mute"]),
        default=None,
        help="What becomes of the own sound.  [default: duck]",
    )
    return own_sound(loudness(command))


def read_settings(settings: Sequence[str], model: type[_Params], **others: Any) -> _Params:
    """Parse `NAME=VALUE` settings; values are YAML, e.g. `allowed_hosts=[example.org]`.

    Args:
        settings: As a user writes them.
        model: What they are settings of.
        others: Further values, which come before them; None: not given.

    Raises:
        ParameterError: A name is unknown or a value cannot be used.
    """
    from difflib import get_close_matches

    import yaml
    from pydantic import ValidationError

    from vmnet_pipeline.errors import ParameterError, describe_validation

    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ParameterError(f"--set {setting}: write NAME=VALUE, for example --set max_upload_mb=50")
        try:
            values[name.strip()] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ParameterError(f"--set {setting}: not valid YAML; write lists as [a, b]") from error
    for name in (name for name in values if name not in model.model_fields):
        near = get_close_matches(name, model.model_fields, 1)
        hint = f"did you mean {near[0]}?" if near else "docs/parameters.md lists all."
        raise ParameterError(f"--set {name}: unknown setting; {hint}")
    values |= {name: value for name, value in others.items() if value is not None}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ParameterError(f"--set {describe_validation(error, show_value=True)}; see docs/parameters.md") from error
