"""How features are extracted and on what."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from vmnet_pipeline.params.base import LimitParams, Params, Share


class ExecutorParams(Params):
    """Where an extraction runs."""

    kind: Literal["auto", "serial", "processes", "dask"] = Field(
        "auto",
        description="`serial`: threads of this process. `processes`: separate workers, so that a crash or a hang "
        "of the network costs one item, too. `dask`: the workers of a cluster. `auto`: dask if there is an address, "
        "else serial for few items or little memory, and for many items as many processes as cores, memory and items "
        "allow.",
    )
    address: str | None = Field(None, description="Scheduler of an existing Dask cluster, `tcp://HOST:PORT`.")

    @model_validator(mode="after")
    def _check_address(self) -> ExecutorParams:
        if self.kind == "dask" and self.address is None:
            raise ValueError("kind dask needs the address of a scheduler, tcp://HOST:PORT")
        if self.kind in ("serial", "processes") and self.address is not None:
            raise ValueError(f"kind {self.kind} takes no address; use kind dask")
        return self


class ArrayParams(Params):
    """One of several independent runs that share a collection."""

    worker: int | None = Field(None, ge=0, description="Number of this run, from 0; `--params worker=I,n_workers=N`.")
    n_workers: int | None = Field(None, ge=1, description="How many runs share the collection.")

    @model_validator(mode="after")
    def _check_worker(self) -> ArrayParams:
        if (self.worker is None) != (self.n_workers is None):
            raise ValueError("worker=I and n_workers=N belong together")
        if self.worker is not None and self.n_workers is not None and self.worker >= self.n_workers:
            raise ValueError(f"worker={self.worker} of n_workers={self.n_workers}: workers are counted from 0")
        return self

    @property
    def shard(self) -> tuple[int, int] | None:
        """(I, N), or None for a run that does everything."""
        return None if self.worker is None or self.n_workers is None else (self.worker, self.n_workers)


class ExtractParams(Params):
    """How features are extracted; what changes their numbers belongs to each backend's own parameters."""

    batch_size: int = Field(64, ge=1, description="Patches or frames per pass through the network.")
    n_workers: int | None = Field(
        None,
        ge=1,
        description="Decoding threads of `serial`, or `processes`; by default chosen by cores, and of "
        "processes by memory and items.",
    )
    item_timeout_s: float | None = Field(
        3600.0, gt=0.0, description="A worker (not `serial`) that finishes no item for so long is ended; null: never."
    )
    max_failed_share: Share = Field(0.5, description="A larger share of failed items ends the run with an error.")
    limits: LimitParams = Field(default_factory=lambda: LimitParams.model_validate({}))
    executor: ExecutorParams = Field(default_factory=lambda: ExecutorParams.model_validate({}))
    array: ArrayParams = Field(default_factory=lambda: ArrayParams.model_validate({}))
