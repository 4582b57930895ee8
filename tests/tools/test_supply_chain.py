"""The locks, the page of licences, the bill of materials, and what an audit says."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))


def test_every_package_of_set_up_is_locked_with_checksums():
    from locked import CUDA_LOCK, LOCKS, read_locks

    pins = read_locks(*LOCKS)  # an entry without a checksum is an error
    names = {pin.name for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    direct = {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", text)[0]).lower() for text in wanted} - {"vmnet-pipeline"}
    assert direct <= names, "run `make lock`"
    torch = {path.name: [pin for pin in read_locks(path) if pin.name == "torch"] for path in (*LOCKS[1:], CUDA_LOCK)}
    assert [pin.version for (pin,) in torch.values()] == ["2.13.0+cpu", "2.13.0"]
    assert "TORCH_VERSION := 2.13.0\n" in (ROOT / "Makefile").read_text()


def test_set_up_installs_nothing_without_checksums():
    lines = (ROOT / "Makefile").read_text().splitlines()
    installs = [line for line in lines if re.search(r"(pip|\$\(PIP\)).* install ", line)]
    # The project itself, and a build of PyTorch that the user asks for.
    others = [line for line in installs if "-e ." not in line and 'install "$(TORCH)"' not in line]
    assert len(others) >= 4
    assert all("--require-hashes" in line for line in others)
    # A lock is complete. pip left to resolve it looks for newer releases of packages that others want with extras,
    # and refuses the whole lock once there is one.
    assert all("--no-deps" in line for line in others)


@pytest.mark.parametrize("line", ["six==1.17.0", "six>=1.17 --hash=sha256:" + "0" * 64])
def test_a_lock_that_does_not_decide_everything_is_refused(tmp_path, line):
    from locked import read_locks

    lock = tmp_path / "bad.lock"
    lock.write_text(f"# comment\n{line}\n")
    with pytest.raises(ValueError, match="renew it with `make lock`"):
        read_locks(lock)


def test_the_page_of_licences_is_in_step_with_the_locks():
    import licences

    page = licences.make_page()  # raises for a package whose licence is unknown or not accepted
    assert page == licences.TARGET.read_text(), "run `python tools/licences.py`"


@pytest.mark.parametrize(
    ("expression", "accepted"),
    [
        ("MIT", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("Apache-2.0 WITH LLVM-exception AND BSD-2-Clause", True),
        ("GPL-3.0-or-later", False),
        ("MIT AND AGPL-3.0-only", False),
        ("LicenseRef-Proprietary", False),
        ("", False),
    ],
)
def test_which_licences_are_accepted(expression, accepted):
    from licences import is_accepted

    assert is_accepted(expression) is accepted


def test_the_bill_of_materials_names_every_package_and_weight_file():
    from locked import LOCKS, read_locks
    from sbom import make_sbom

    bill = make_sbom()
    assert bill == make_sbom()
    parts = {part["bom-ref"]: part for part in bill["components"]}
    assert len(parts) == len(bill["components"])
    for pin in read_locks(*LOCKS):
        part = parts[f"pkg:pypi/{pin.name}@{pin.version.replace('+', '%2B')}"]
        assert part["licenses"]
        assert {entry["content"] for entry in part["externalReferences"][0]["hashes"]} == {*pin.hashes}
    files = parts["weights:MSD_musicnn"]["components"]
    assert all(len(file["hashes"][0]["content"]) == 64 for file in files)
    json.dumps(bill)


@pytest.mark.parametrize(
    ("answer", "n_answers", "code", "said"),
    [
        ({"skip_reason": "not found"}, 2, 0, "nothing was audited"),
        ({"vulns": []}, 2, 0, "2 of 2 packages audited, 0 vulnerabilities"),
        ({"vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}, 2, 1, "CVE-1, fixed in 3"),
        ({"vulns": []}, 1, 1, "gave up on some of them"),  # the database was there for the first question only
    ],
)
def test_an_audit_says_what_it_could_not_ask(monkeypatch, capsys, answer, n_answers, code, said):
    import audit
    from locked import Pin

    pins = [Pin("requests", "2", "", ("0",)), Pin("six", "1", "", ("0",))]
    monkeypatch.setattr(audit, "read_locks", lambda *paths: pins)
    monkeypatch.setattr(
        audit, "ask", lambda pins: [{"name": pin.name, "version": pin.version, **answer} for pin in pins[:n_answers]]
    )
    assert audit.main() == code
    assert said in capsys.readouterr().out
