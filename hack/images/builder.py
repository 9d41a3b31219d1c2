"""Builds images without a daemon (buildah) on a Debian base made by debootstrap, and keeps each as an archive."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.layout import REPOSITORY
from hack.cluster.processes import run
from hack.images import store
from hack.images.catalogue import BINARY_DOCKERFILE, DOCKERFILE, Image

BASE = "localhost/talktime/base:bookworm"
BASE_PACKAGES = "python3,ca-certificates"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
USUAL_SECONDS = {"control": 60, "agent": 90, "simulator": 60, "postgres": 25, "redis": 10, "prometheus": 20}
# The program's arguments come from pods; only the entry point is the image's.
ENTRYPOINTS = {"pause": '["/pause"]', "coredns": '["/coredns"]', "livekit-server": '["/livekit-server"]'}


@dataclass(frozen=True)
class Workshop:
    """Where images are built: everything below one folder of the state."""

    state: Path
    binaries: Path

    @property
    def layout(self) -> Path:
        """The OCI layout with all built images."""
        return self.state / "images"

    @property
    def buildah(self) -> list[str]:
        return ["buildah", "--root", str(self.state / "buildah"), "--runroot", str(self.state / "buildah-run")]


@contextlib.contextmanager
def alone(shop: Workshop) -> Iterator[None]:
    """One builder at a time per state folder; others wait."""
    shop.state.mkdir(parents=True, exist_ok=True)
    with (shop.state / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make(shop: Workshop, image: Image) -> Image:
    """Builds the image when the layout does not hold it with this content; older contents of it are dropped."""
    stamp = shop.layout / "stamps" / image.name
    if stamp.exists() and stamp.read_text() == image.mark and store.holds(shop.layout, image.full_name):
        return image
    stamp.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    usual = USUAL_SECONDS.get(image.target, 3)
    say(f"building {image.reference} (the first time about {usual} s, after a source change a few)")
    build(shop, image)
    old = {name for name in store.names(shop.layout) if name.rpartition(":")[0] == image.full_name.rpartition(":")[0]}
    # Uncompressed: containerd has to unpack the layers anyway, and nothing travels further than this machine.
    target = f"oci:{shop.layout}:{image.full_name}"
    run([*shop.buildah, "push", "--quiet", "--disable-compression", image.full_name, target])
    store.forget(shop.layout, old - {image.full_name})
    stamp.write_text(image.mark)
    say(f"{image.reference} is built ({time.monotonic() - began:.0f} s)")
    return image


def build(shop: Workshop, image: Image) -> None:
    """Raises RuntimeError with the end of the build's output."""
    if image.binary:
        context = shop.binaries
        options = [f"--build-arg=PROGRAM={image.binary}", f"--file={REPOSITORY / BINARY_DOCKERFILE}"]
    else:
        base(shop)
        context = REPOSITORY
        options = [f"--target={image.target}", f"--file={REPOSITORY / DOCKERFILE}", f"--build-arg=BASE={BASE}"]
        options += [f"--build-arg=DEBIAN={BASE}", f"--ignorefile={REPOSITORY / 'hack/images/Dockerfile.dockerignore'}"]
        options += surroundings()
    argv = [*shop.buildah, "bud", "--quiet", "--layers", "--isolation=chroot", "--network=host", "--pull-never"]
    done = subprocess.run(
        [*argv, *options, f"--tag={image.full_name}", str(context)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        ending = "\n".join((done.stdout + done.stderr).splitlines()[-25:])
        raise RuntimeError(f"{image.reference} cannot be built:\n{ending}")
    if image.binary:
        configure_entry_point(shop, image)


def configure_entry_point(shop: Workshop, image: Image) -> None:
    container = run([*shop.buildah, "from", "--pull-never", image.full_name]).strip()
    run([*shop.buildah, "config", "--entrypoint", ENTRYPOINTS[image.binary], container])
    run([*shop.buildah, "commit", "--quiet", "--rm", container, image.full_name])


def surroundings() -> list[str]:
    """What installs during the build take from this machine: its certificates, package index and uv's cache."""
    cache = Path(os.environ.get("UV_CACHE_DIR", Path.home() / ".cache" / "uv"))
    cache.mkdir(parents=True, exist_ok=True)
    options = [f"--volume={cache}:/root/.cache/uv"]
    if CERTIFICATES.exists():
        options += [f"--volume={CERTIFICATES}:{CERTIFICATES}:ro"]
        options += [f"--build-arg=SSL_CERT_FILE={CERTIFICATES}", f"--build-arg=PIP_CERT={CERTIFICATES}"]
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"):
        if os.environ.get(name):
            options.append(f"--build-arg={name}={os.environ[name]}")
    return options


def base(shop: Workshop) -> None:
    """The Debian base image with python3, made once."""
    if (
        subprocess.run([*shop.buildah, "inspect", "--type=image", BASE], capture_output=True, check=False).returncode
        == 0
    ):
        return
    began = time.monotonic()
    say("the Debian base image by debootstrap (usually 40 to 100 s)")
    root = shop.state / "debootstrap"
    shutil.rmtree(root, ignore_errors=True)
    shop.state.mkdir(parents=True, exist_ok=True)
    run(["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", str(root), *mirror()])
    for unneeded in (
        "usr/share/doc",
        "usr/share/man",
        "usr/share/locale",
        "var/cache/apt",
        "var/lib/apt/lists",
        "var/log",
    ):
        shutil.rmtree(root / unneeded, ignore_errors=True)
        (root / unneeded).mkdir(parents=True)
    (root / "etc/apt/apt.conf.d/90talktime").write_text('APT::Install-Recommends "false";\nDir::Cache::pkgcache "";\n')
    (root / "etc/dpkg/dpkg.cfg.d/90talktime").write_text(
        "path-exclude=/usr/share/doc/*\npath-exclude=/usr/share/man/*\n"
    )
    (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    (root / "usr/sbin/policy-rc.d").chmod(0o755)
    container = run([*shop.buildah, "from", "scratch"]).strip()
    run([*shop.buildah, "copy", container, str(root), "/"])
    run([*shop.buildah, "config", "--cmd", "/bin/bash", container])
    run([*shop.buildah, "commit", "--quiet", "--rm", container, BASE])
    shutil.rmtree(root)
    say(f"the Debian base image is made ({time.monotonic() - began:.0f} s)")


def mirror() -> list[str]:
    """The Debian mirror that this machine's apt uses; none found: debootstrap has a default of its own."""
    lists = [
        Path("/etc/apt/sources.list"),
        *Path("/etc/apt/sources.list.d").glob("*.sources"),
        *Path("/etc/apt/sources.list.d").glob("*.list"),
    ]
    text = "\n".join(path.read_text() for path in lists if path.exists())
    for address in re.findall(
        r"https?://[^\s\]]+", "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    ):
        if re.search(r"/debian/?$", address):
            return [str(address)]
    return []


def pause_program(shop: Workshop, go: str) -> None:
    """Compiles the pause container's program unless it is there."""
    target = shop.binaries / "pause"
    if not target.exists():
        source = REPOSITORY / "hack/images/pause"
        environment = {**os.environ, "CGO_ENABLED": "0"}
        subprocess.run(
            [go, "build", "-trimpath", "-ldflags=-s -w", "-o", str(target), "."],
            cwd=source,
            env=environment,
            check=True,
        )


def say(line: str) -> None:
    print(f"images: {line}", flush=True)
