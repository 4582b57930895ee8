"""`python -m vmnet_pipeline` takes the options of `kedro run`, from within the project's folder."""

from __future__ import annotations

import sys


def main() -> None:
    """Do what `kedro run` does."""
    from kedro.framework.cli.cli import main as run_command

    sys.argv = ["kedro", "run", *sys.argv[1:]]
    run_command()


if __name__ == "__main__":
    main()
