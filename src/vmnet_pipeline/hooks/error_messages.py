"""Print a deliberate error as one sentence, without a traceback."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from vmnet_pipeline.errors import ParameterError, VmnetError
from vmnet_pipeline.storage.atomic import explain_disk_error
from vmnet_pipeline.storage.limits import explain_limit

if TYPE_CHECKING:
    from types import TracebackType


def install_excepthook() -> None:
    """Print errors raised on purpose, here or by Kedro for a wrong call, without a traceback."""
    if "VMNET_TRACEBACK" not in os.environ:
        sys.excepthook = _print_error


def find_own_error(error: BaseException | None) -> VmnetError | None:
    """The error of this project behind `error`, which Kedro may have wrapped; also for a full disk or a limit."""
    outer = error
    while error is not None:
        if isinstance(error, VmnetError):
            return error
        error = error.__cause__
    return explain_disk_error(outer) or explain_limit(outer)


def _print_error(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    own = find_own_error(error) or _explain_wrong_call(error)
    if own is None:
        sys.__excepthook__(kind, error, traceback)
        return
    sys.stderr.write(f"\n{type(own).__name__}: {own}\n(Set VMNET_TRACEBACK=1 to see where it was raised.)\n")


def _explain_wrong_call(error: BaseException) -> ParameterError | None:
    """Explain what Kedro refuses before it runs anything; None for other errors."""
    from kedro.validation.exceptions import ParameterValidationError

    if isinstance(error, ParameterValidationError):
        return ParameterError("\n".join(line for line in str(error).splitlines() if "errors.pydantic.dev" not in line))
    missing = re.match(r"Failed to find the pipeline named '(.*?)'", str(error))
    if missing is None or not isinstance(error, ValueError):
        return None
    near = str(error).partition("Did you mean one of these instead?\n")[2].split()
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return ParameterError(f"There is no pipeline {missing[1]}. {hint}`kedro registry list` lists all.")
