"""The driver as a process of its own, to be killed, interrupted or starved: `run_toy.py MEDIA STORE SETTINGS`."""

from __future__ import annotations

import json
import logging
import resource
import sys
from pathlib import Path

from toy_backend import ToyBackend

from vmnet_pipeline.errors import VmnetError
from vmnet_pipeline.extraction.driver import extract_missing, select_shard
from vmnet_pipeline.extraction.planning import find_unfinished
from vmnet_pipeline.features.store import FeatureStore
from vmnet_pipeline.params import ExtractParams
from vmnet_pipeline.progress import track
from vmnet_pipeline.types import MediaItem


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    media, folder, settings = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    if "max_file_bytes" in settings:
        limit = settings.pop("max_file_bytes")
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    backend = ToyBackend(**settings.pop("backend", {}))
    found = [MediaItem(path.stem, str(path), f"sha256:{int(path.stem)}") for path in sorted(media.iterdir())]
    params = ExtractParams.model_validate(settings)
    items = select_shard(found, params.array.shard)
    store = FeatureStore(folder)
    missing = find_unfinished(items, store)
    print(f"{len(missing)} missing", flush=True)
    try:
        with track("toy", len(missing)) as bar:
            for row in extract_missing(backend, missing, store, params):
                bar.advance(failed=row.status == "failed")
                print(row.id, flush=True)
    except VmnetError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
