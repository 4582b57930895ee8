"""Ask pip-audit whether locked versions have known vulnerabilities: `make audit`.

Exit code 1 when there are some, or when some packages got no answer. Where no database can be reached that is said,
and the exit code is 0: pip-audit itself would say that nothing was found.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from locked import LOCKS, Pin, read_locks

PROBE = "requests"  # has entries in every database; asked for first, so that nothing else is asked in vain
TIMEOUT_S = 900


def main() -> int:
    """Audit all locks; the exit code."""
    pins = read_locks(*LOCKS)
    probe = [pin for pin in pins if pin.name == PROBE]
    if not any("vulns" in row for row in ask(probe)):
        print("No database of vulnerabilities can be reached from here: nothing was audited.")
        return 0
    # pip-audit takes one version of a package at a time; some have one per version of Python.
    newest = {pin.name: pin for pin in pins}
    others = [pin for pin in pins if newest[pin.name] != pin]
    rows = [*ask([*newest.values()]), *(ask(others) if others else [])]
    bad = [(row, vulnerability) for row in rows for vulnerability in row.get("vulns", [])]
    for row, vulnerability in bad:
        fixed = ", ".join(vulnerability["fix_versions"]) or "none yet"
        print(f"{row['name']} {row['version']}: {vulnerability['id']}, fixed in {fixed}")
    for row in rows:
        if "skip_reason" in row:
            print(f"not audited: {row['skip_reason']}")
    print(f"{sum('vulns' in row for row in rows)} of {len(pins)} packages audited, {len(bad)} vulnerabilities")
    if len(rows) < len(pins):
        print("pip-audit gave up on some of them; see what it says above, and run this again")
    return 1 if bad or len(rows) < len(pins) else 0


def ask(pins: list[Pin]) -> list[dict[str, Any]]:
    """What pip-audit says of each package, a row per pin; no row when it fails, and then its last line is shown."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pins.txt"
        path.write_text("\n".join(f"{pin.name}=={pin.version.partition('+')[0]}" for pin in pins), encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "--progress-spinner", "off"]
        done = subprocess.run(
            [*command, "--format", "json", "-r", str(path)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    try:
        return list(json.loads(done.stdout)["dependencies"])
    except (ValueError, KeyError):
        print(done.stderr.strip().rpartition("\n")[2], file=sys.stderr)
        return []


if __name__ == "__main__":
    sys.exit(main())
