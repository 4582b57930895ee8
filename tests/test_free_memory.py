"""Free memory is the least of what the machine and the control groups leave."""

from __future__ import annotations

import pytest

from vmnet_pipeline import free_memory

GB = 1 << 30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    meminfo, groups = tmp_path / "meminfo", [tmp_path / "inner", tmp_path / "outer"]
    meminfo.write_text("MemTotal:       24000000 kB\nMemAvailable:   16777216 kB\nHugePages_Total:       0\n")
    for group in groups:
        group.mkdir()
    monkeypatch.setattr(free_memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(free_memory, "list_groups", lambda controller: groups if controller == "memory" else [])
    return tmp_path


def limit(folder, **files):
    for name, content in files.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{content}\n")


def test_it_is_that_of_the_machine_without_a_limit(machine):
    limit(machine / "inner", memory_max="max", memory_current=5 * GB)
    assert free_memory.find_free_memory_mb() == 16 * 1024


def test_a_group_limits_it_and_unused_pages_of_files_count_as_free(machine):
    limit(machine / "outer", memory_max=8 * GB, memory_current=5 * GB)
    assert free_memory.find_free_memory_mb() == 3 * 1024
    (machine / "outer" / "memory.stat").write_text(f"anon 1\ninactive_file {2 * GB}\n")
    assert free_memory.find_free_memory_mb() == 5 * 1024
    limit(machine / "inner", memory_limit_in_bytes=2 * GB, memory_usage_in_bytes=3 * GB)
    assert free_memory.find_free_memory_mb() == 0


def test_it_is_unknown_where_the_system_does_not_tell(machine):
    (machine / "meminfo").unlink()
    assert free_memory.find_free_memory_mb() is None
