"""Write a bill of materials of a release as CycloneDX JSON: `make sbom`.

It names every locked package with its version, licence and the SHA-256 of each file that set-up accepts, and every
weight file of `conf/base/weights.yml` with its checksum. The same locks give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import sys
import uuid
from pathlib import Path
from typing import Any

import yaml
from licences import find_licence
from locked import CUDA_LOCK, LOCKS, ROOT, Pin, read_locks

from vmnet_pipeline import __version__

TARGET = ROOT / "dist" / f"vmnet_pipeline-{__version__}.cdx.json"
WEIGHTS = ROOT / "conf" / "base" / "weights.yml"


def make_sbom() -> dict[str, Any]:
    """The whole document."""
    pins, weights = read_locks(*LOCKS), yaml.safe_load(WEIGHTS.read_text(encoding="utf-8"))
    known = {(pin.name, pin.version) for pin in pins}
    components = [
        *(describe_pin(pin, find_licence(pin.name)) for pin in pins),
        *(describe_pin(pin, None) for pin in read_locks(CUDA_LOCK) if (pin.name, pin.version) not in known),
        *(describe_weights(name, entry) for name, entry in sorted(weights.items())),
    ]
    digest = hashlib.sha256(json.dumps(components, sort_keys=True).encode()).digest()
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=4)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": "vmnet-pipeline",
                "name": "vmnet-pipeline",
                "version": __version__,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
                "purl": f"pkg:pypi/vmnet-pipeline@{__version__}",
            }
        },
        "components": components,
    }


def describe_pin(pin: Pin, licence: str | None) -> dict[str, Any]:
    """One package. Its accepted files are one reference: they are built from one source for unlike machines."""
    purl = f"pkg:pypi/{pin.name}@{pin.version.replace('+', '%2B')}"
    described: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": pin.name,
        "version": pin.version,
        "purl": purl,
        "externalReferences": [
            {
                "type": "distribution",
                "url": purl,
                "hashes": [{"alg": "SHA-256", "content": digest} for digest in pin.hashes],
            }
        ],
    }
    if licence:
        described["licenses"] = [{"license": {"name": licence}}]
    if pin.marker:
        described["properties"] = [{"name": "vmnet:environment", "value": pin.marker}]
    return described


def describe_weights(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """One set of weights, which is fetched when it is needed; files without a published checksum have none here."""
    files = [
        {
            "type": "file",
            "bom-ref": f"weights:{name}:{file['path']}",
            "name": file["path"],
            **({"hashes": [{"alg": "SHA-256", "content": file["sha256"]}]} if "sha256" in file else {}),
        }
        for file in entry["files"]
    ]
    return {
        "type": "machine-learning-model",
        "bom-ref": f"weights:{name}",
        "name": name,
        "licenses": [{"license": {"name": entry["licence"]}}],
        "externalReferences": [{"type": "website", "url": entry["homepage"]}],
        "components": files,
    }


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(make_sbom(), indent=1) + "\n", encoding="utf-8")
    print(target)
