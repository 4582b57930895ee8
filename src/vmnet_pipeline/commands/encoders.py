"""`kedro encoders`: try an encoder's weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click

from vmnet_pipeline.commands.collection import choose_weights
from vmnet_pipeline.commands.errors import report_errors
from vmnet_pipeline.commands.project import PlaceOrName, ProjectGroup
from vmnet_pipeline.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vmnet_pipeline.backends.encoders.backend import EncoderBackend


@click.group(name="encoders", cls=ProjectGroup, short_help="Encoders of transformers: check weights.")
def manage_encoders() -> None:
    """Encoders of the library transformers: check weights."""


@manage_encoders.command(name="check")
@click.argument("model", type=PlaceOrName())
@click.option("--revision", default="", help="Commit of OWNER/NAME; what you call a folder.")
@click.option("--engine", type=click.Choice(["auto", "torch", "openvino"]), default="auto", show_default=True)
@click.option("--allow-noncommercial", is_flag=True, help="Also weights that are not for commercial use.")
@click.option("--allow-remote-code", default="", help="Run the model's Python code of this revision.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter, e.g. window_s=5.")
@choose_weights
@report_errors()
def check_weights(model: str, weights_dir: Path, settings: tuple[str, ...], **given: Any) -> None:
    """Compare embeddings with the library's own call, on a sample, and time them.

    MODEL is a preset (clap, pe-av), a folder, or OWNER/NAME; it must be here. Paste the block that is printed into a
    report of a defect. Exit code 1 if anything differs.
    """
    from vmnet_pipeline.backends.encoders.check import check_on_sample

    params = {name: value for name, value in given.items() if value} | _read_settings(settings)
    verdicts = []
    for backend in _make_backends(str(model), params, weights_dir):
        rows = check_on_sample(backend)
        width = max(map(len, rows))
        click.echo("\n".join(["```", *(f"{name:<{width}}  {text}" for name, text in rows.items()), "```"]))
        verdicts.append(rows["verdict"])
    if any(verdict != "good" for verdict in verdicts):
        raise click.exceptions.Exit(1)


def _read_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    import yaml

    pairs = [text.partition("=") for text in settings]
    if wrong := [name for name, sign, _ in pairs if not sign]:
        raise ParameterError(f"--set {wrong[0]}: give NAME=VALUE")
    return {name: yaml.safe_load(value) for name, _, value in pairs}


def _make_backends(model: str, params: dict[str, Any], weights_dir: Path) -> Iterator[EncoderBackend]:
    """The backend of a preset, or those that a model can be used by."""
    from vmnet_pipeline.backends.encoders.backend import AudioEncoder, ClipEncoder, FrameEncoder
    from vmnet_pipeline.backends.encoders.kinds import TYPES
    from vmnet_pipeline.backends.encoders.presets import PRESETS
    from vmnet_pipeline.backends.encoders.source import find_source, read_json
    from vmnet_pipeline.backends.registry import get_backend

    names = [name for name in (model, f"{model}-audio", f"{model}-video") if name in PRESETS]
    for name in names:
        yield cast("EncoderBackend", get_backend(name, params, weights_dir=weights_dir))
    if names:
        return
    revision, allow = params.get("revision", ""), bool(params.get("allow_noncommercial"))
    folder = find_source(model, revision, weights_dir, allow_noncommercial=allow).folder
    kind = str(read_json(folder / "config.json").get("model_type"))
    fitting = [own for own in (AudioEncoder, FrameEncoder, ClipEncoder) if kind in TYPES[own.kind]]
    for own in fitting or [FrameEncoder]:  # whose error says what there is
        yield own({**params, "model": model}, weights_dir=weights_dir)
