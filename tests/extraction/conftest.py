from __future__ import annotations

from collections.abc import Iterator

import pytest
from toy_bench import Bench


@pytest.fixture
def bench(tmp_path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()
