"""Uploads that are kept: time, size, and requests that use them meanwhile."""

import time

import pytest

from vmnet_pipeline.serving.errors import RefusedError
from vmnet_pipeline.serving.kept_uploads import KeptUploads


@pytest.fixture
def make_kept():
    made = []

    def make(keep_s=60.0, max_bytes=100):
        made.append(KeptUploads(keep_s, max_bytes))
        return made[-1]

    yield make
    for kept in made:
        kept.close()
        assert not kept.folder.path.exists()


def add(kept, size):
    with kept.folder.open_file() as (file, path):
        file.write(b"x" * size)
        file.flush()
        return kept.add(path, size, {})


def has(kept, token):
    try:
        with kept.use(token) as upload:
            return upload.path.is_file()
    except RefusedError as error:
        assert error.status == 404
        return False


def test_the_one_unused_for_longest_gives_way(make_kept):
    kept = make_kept()
    first, second = add(kept, 40), add(kept, 40)
    assert has(kept, second) and has(kept, first)  # in this order
    third = add(kept, 40)
    assert [has(kept, token) for token in (first, second, third)] == [True, False, True]
    fourth = add(kept, 500)  # alone it may be larger
    assert [has(kept, token) for token in (first, third, fourth)] == [False, False, True]
    assert len([*kept.folder.path.iterdir()]) == 1


def test_one_in_use_stays(make_kept):
    kept = make_kept()
    first = add(kept, 80)
    with kept.use(first) as upload:
        second = add(kept, 80)
        assert upload.path.is_file()
    kept.remove_old()
    assert [has(kept, token) for token in (first, second)] == [False, True]


def test_time_counts_from_the_last_use(make_kept):
    kept = make_kept(keep_s=0.6)
    token = add(kept, 1)
    for _ in range(4):
        time.sleep(0.25)
        kept.remove_old()
        assert has(kept, token)
    with kept._lock:
        kept._kept[token].ends = time.monotonic() - 1.0
    assert not has(kept, token)
    kept.remove_old()
    assert [*kept.folder.path.iterdir()] == []


def test_a_file_that_something_removed(make_kept):
    kept = make_kept()
    token = add(kept, 1)
    with kept.use(token) as upload:
        upload.path.unlink()
    with pytest.raises(RefusedError, match="send the file again"), kept.use(token):
        pass
