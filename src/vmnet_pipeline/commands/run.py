"""`kedro run` of Kedro, with names and paths in `--params` kept as text."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable

    import click


def make_run_command() -> click.Command:
    """Copy Kedro's command, with other parsers for `--params` and for `params` in a file of `--config`."""
    from kedro.framework.cli.project import run

    command = copy.copy(run)
    command.short_help = "Run pipelines: ingest, extract, train, evaluate."
    readers = {"params": _read_params, "config": _read_file}
    command.params = [_replace_reader(option, readers.get(option.name or "")) for option in run.params]
    return command


def _replace_reader(option: click.Parameter, read: Callable[..., Any] | None) -> click.Parameter:
    if read is None or option.callback is None:
        return option
    replaced = copy.copy(option)
    replaced.callback = partial(read, option.callback)
    return replaced


def _read_params(parse: Callable[..., Any], ctx: click.Context, option: click.Parameter, value: Any) -> Any:
    from vmnet_pipeline.hooks.config_loader import quote_names

    try:
        return parse(ctx, option, quote_names(value) if isinstance(value, str) else value)
    except ParameterError as error:
        ctx.fail(str(error))


def _read_file(parse: Callable[..., Any], ctx: click.Context, option: click.Parameter, value: Any) -> Any:
    """Read the options of a file; its `params` from the text, as Kedro has already parsed them."""
    from vmnet_pipeline.hooks.config_loader import load_as_written

    result = parse(ctx, option, value)
    if value and ctx.default_map and "params" in ctx.default_map:
        content = load_as_written(Path(value).read_text(encoding="utf-8"))
        ctx.default_map["params"] = content[ctx.info_name]["params"]
    return result
