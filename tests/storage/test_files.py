import pytest

from vmnet_pipeline.storage.files import replace_atomically, write_text_atomically


def test_a_failing_writer_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text_atomically(path, "old")
    with pytest.raises(RuntimeError), replace_atomically(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_reader_sees_the_old_content_until_the_writer_is_done(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    write_text_atomically(path, "old")
    with replace_atomically(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
