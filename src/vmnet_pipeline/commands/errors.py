"""How a command ends when something was wrong: with one sentence and exit code 1."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from vmnet_pipeline.errors import VmnetError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def tell_errors(*others: type[Exception]) -> Iterator[None]:
    """Let an error that is raised on purpose, or one of some other kinds, end a command without a traceback."""
    expected: tuple[type[Exception], ...] = (VmnetError, *others)
    try:
        yield
    except expected as error:
        raise click.ClickException(str(error)) from error
