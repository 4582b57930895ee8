"""End a command that fails with one sentence and exit code 1."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from vmnet_pipeline.errors import VmnetError
from vmnet_pipeline.storage.atomic import explain_disk_error
from vmnet_pipeline.storage.limits import explain_limit

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def report_errors(*others: type[Exception]) -> Iterator[None]:
    """End a command without a traceback on a deliberate error, one of the disk or a limit, or one of `others`."""
    expected: tuple[type[Exception], ...] = (VmnetError, *others)
    try:
        yield
    except expected as error:
        raise click.ClickException(str(error)) from error
    except Exception as error:
        own = explain_disk_error(error) or explain_limit(error)
        if own is None or "VMNET_TRACEBACK" in os.environ:
            raise
        raise click.ClickException(str(own)) from error
