"""Run the project with training shared by several processes, one per GPU.

    torchrun --nproc-per-node 2 -m vmnet_pipeline.train_distributed --pipeline train --env cuda

takes the options of `kedro run`. The first process does what `kedro run` does; the others help where it trains.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    """Lead, or follow until the leading process is done; torchrun ends all of them when one fails."""
    if "RANK" not in os.environ:
        sys.exit("Start this by torchrun: torchrun --nproc-per-node 2 -m vmnet_pipeline.train_distributed ...")
    from vmnet_pipeline.training import distributed

    distributed.join_group()
    code = 0
    if distributed.rank():
        _enter_project()
        distributed.run_follower()
    else:
        code = _run_kedro()
        distributed.stop_followers()
    distributed.leave_group()
    sys.exit(code)


def _enter_project() -> None:
    """Those that follow read files by the paths of the leading process."""
    from kedro.utils import find_kedro_project

    from vmnet_pipeline.storage.project import enter_project

    enter_project(find_kedro_project(Path.cwd()) or Path.cwd())


def _run_kedro() -> int:
    """Exit code of a run that did what was asked: 0, or that of one which could not be tracked."""
    from kedro.framework.cli.cli import main as run_command

    from vmnet_pipeline.hooks.tracking import NOT_TRACKED

    sys.argv = ["kedro", "run", *sys.argv[1:]]
    try:
        run_command()
    except SystemExit as end:  # how a command ends, be it well or not
        if end.code not in (None, 0, NOT_TRACKED):
            raise
        return int(end.code or 0)
    return 0


if __name__ == "__main__":
    main()
