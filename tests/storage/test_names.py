"""Names as a disk has them."""

import unicodedata

from vmnet_pipeline.storage.names import DiskNames, find_on_disk, is_case_sensitive

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Déjà vu") for form in ("NFC", "NFD"))


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_relative_paths_are_found_too(tmp_path, monkeypatch):
    touch(tmp_path / DECOMPOSED / "x")
    monkeypatch.chdir(tmp_path)
    assert DiskNames().find(COMPOSED) == DECOMPOSED
    assert DiskNames().find(f"{COMPOSED}/x") == f"{DECOMPOSED}/x"
    assert DiskNames().find(f"{COMPOSED}/none-é") == f"{COMPOSED}/none-é"
    assert find_on_disk(tmp_path / COMPOSED / "x") == tmp_path / DECOMPOSED / "x"


def test_a_disk_is_asked_without_writing(tmp_path, monkeypatch):
    assert is_case_sensitive(tmp_path / "made" / "later")
    assert list(tmp_path.iterdir()) == []
    real = type(tmp_path).exists
    monkeypatch.setattr(type(tmp_path), "exists", lambda path: real(path) or real(path.with_name(path.name.swapcase())))
    monkeypatch.setattr(type(tmp_path), "samefile", lambda path, other: path.name.casefold() == other.name.casefold())
    assert not is_case_sensitive(tmp_path / "made" / "later")
