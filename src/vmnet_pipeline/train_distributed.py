"""Run the project with training shared by several processes, one per GPU.

    torchrun --nproc-per-node 2 -m vmnet_pipeline.train_distributed --pipeline train --env cuda

takes the options of `kedro run`. The first process does what `kedro run` does; the others help where it trains.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Lead, or follow until the leading process is done; torchrun ends all of them when one fails."""
    if "RANK" not in os.environ:
        sys.exit("Start this by torchrun: torchrun --nproc-per-node 2 -m vmnet_pipeline.train_distributed ...")
    from vmnet_pipeline.training import distributed
    from vmnet_pipeline.training.loop import dismiss_followers, follow_training

    distributed.join_group()
    if distributed.rank():
        follow_training()
    else:
        _run_kedro()
        dismiss_followers()
    distributed.leave_group()


def _run_kedro() -> None:
    from kedro.framework.cli.cli import main as run_command

    sys.argv = ["kedro", "run", *sys.argv[1:]]
    try:
        run_command()
    except SystemExit as end:  # how a command ends, be it well or not
        if end.code:
            raise


if __name__ == "__main__":
    main()
