"""The built images: one OCI layout whose blobs they share, and sending a node only the blobs that it lacks."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import IO, Any

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"


def manifest_of(layout: Path, name: str) -> dict[str, Any] | None:
    """The index entry of an image by its full name."""
    return next((entry for entry in entries(layout) if entry.get("annotations", {}).get(REF_NAME) == name), None)


def holds(layout: Path, name: str) -> bool:
    """The image and every blob of it."""
    entry = manifest_of(layout, name)
    if entry is None or not blob(layout, entry["digest"]).exists():
        return False
    return all(blob(layout, digest).exists() for digest in blobs_of(layout, entry))


def entries(layout: Path) -> list[dict[str, Any]]:
    index = layout / "index.json"
    return list(json.loads(index.read_text())["manifests"]) if index.exists() else []


def names(layout: Path) -> set[str]:
    """Full names of all images in the layout."""
    return {
        str(entry["annotations"][REF_NAME]) for entry in entries(layout) if REF_NAME in entry.get("annotations", {})
    }


def blobs_of(layout: Path, entry: dict[str, Any]) -> list[str]:
    """Digests that an image consists of, its manifest included."""
    manifest = json.loads(blob(layout, entry["digest"]).read_text())
    return [entry["digest"], manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]


def blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")


def forget(layout: Path, names: set[str]) -> None:
    """Drops images, and the blobs that nobody needs any more."""
    kept = [entry for entry in entries(layout) if entry.get("annotations", {}).get(REF_NAME) not in names]
    index = json.loads((layout / "index.json").read_text())
    (layout / "index.json").write_text(json.dumps({**index, "manifests": kept}))
    whole = [entry for entry in kept if blob(layout, entry["digest"]).exists()]
    needed = {digest.removeprefix("sha256:") for entry in whole for digest in blobs_of(layout, entry)}
    for path in (layout / "blobs" / "sha256").iterdir():
        if path.name not in needed:
            path.unlink()


def send(layout: Path, name: str, present: set[str], importer: list[str]) -> None:
    """Streams an image into `importer` (`ctr images import -`) without the layers in `present`.

    Raises RuntimeError with the importer's words.
    """
    entry = manifest_of(layout, name)
    if entry is None:
        raise RuntimeError(f"{name} is not built")
    process = subprocess.Popen(importer, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdin is not None and process.stdout is not None
    try:
        with process.stdin, tarfile.open(fileobj=process.stdin, mode="w|") as archive:
            pack(layout, name, entry, present, archive)
    except BrokenPipeError:
        pass
    words = process.stdout.read().decode(errors="replace")
    if process.wait():
        raise RuntimeError(f"{name} is refused: {words.strip()}")


def pack(layout: Path, name: str, entry: dict[str, Any], present: set[str], archive: tarfile.TarFile) -> None:
    named = {**entry, "annotations": {CONTAINERD_NAME: name}}
    index = {"schemaVersion": 2, "manifests": [named]}
    for path, content in (("oci-layout", '{"imageLayoutVersion":"1.0.0"}'), ("index.json", json.dumps(index))):
        add(archive, path, io.BytesIO(content.encode()), len(content.encode()))
    manifest, config, *layers = blobs_of(layout, entry)
    for digest in [manifest, config, *(layer for layer in layers if layer not in present)]:
        source = blob(layout, digest)
        with source.open("rb") as content_file:
            add(archive, f"blobs/sha256/{source.name}", content_file, source.stat().st_size)


def add(archive: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    archive.addfile(member, content)
