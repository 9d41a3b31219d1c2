"""Which images there are, what each is made of, and so which tag it carries: pure but for reading the sources."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.layout import REPOSITORY

DOCKERFILE = "hack/images/Dockerfile"
BINARY_DOCKERFILE = "hack/images/Dockerfile.binary"
PRODUCT = ("control", "agent", "simulator")
SHARED_INPUTS = (
    DOCKERFILE,
    "hack/images/install-dependencies",
    "hack/images/lay-over",
    "requirements.lock",
    "pyproject.toml",
)
MEMBERS = ("ledger", "operator", "gateway", "console", "agent", "simulator")


@dataclass(frozen=True)
class Image:
    """An image to build. `binary`: a program of the pinned tools, alone in its image; else a Dockerfile's target."""

    reference: str
    fingerprint: str
    target: str = ""
    binary: str = ""

    @property
    def full_name(self) -> str:
        """As container runtimes spell it."""
        first = self.reference.split("/")[0]
        return self.reference if "." in first or first == "localhost" else f"docker.io/{self.reference}"

    @property
    def name(self) -> str:
        """Without the tag, as a file name."""
        return self.reference.rpartition(":")[0].replace("/", "_")

    @property
    def mark(self) -> str:
        """Changes with name or content."""
        return f"{self.reference} {self.fingerprint}"


def product_tag(repository: Path = REPOSITORY) -> str:
    """One tag for the three product images: the hash of everything that goes into them."""
    sources = [file for member in MEMBERS for file in member_files(repository, member)]
    return fingerprint(repository, [*SHARED_INPUTS, *sources])


def member_files(repository: Path, member: str) -> list[str]:
    files = [path for path in (repository / member).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return [str(path.relative_to(repository)) for path in files if ".egg-info" not in str(path)]


def fingerprint(repository: Path, files: Iterable[str], *extra: str) -> str:
    """12 hex digits over names and contents."""
    digest = hashlib.sha256()
    for name in sorted(files):
        content = (repository / name).read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    for text in extra:
        digest.update(f"{text}\0".encode())
    return digest.hexdigest()[:12]


def product_images(tag: str) -> list[Image]:
    return [Image(f"talktime/{name}:{tag}", tag, target=name) for name in PRODUCT]


def trial_images(repository: Path = REPOSITORY) -> list[Image]:
    """What the chart's embedded databases and metrics run, at the tags of its values."""
    references = {
        "postgres": "talktime/postgres:15",
        "redis": "talktime/redis:7.0",
        "prometheus": "talktime/prometheus:2.42",
    }
    text = (repository / DOCKERFILE).read_text()
    marks = {target: fingerprint(repository, [], stage(text, target)) for target in references}
    return [Image(reference, marks[target], target=target) for target, reference in references.items()]


def stage(dockerfile: str, target: str) -> str:
    """The text of one stage, up to the next FROM."""
    _, _, rest = dockerfile.partition(f" AS {target}\n")
    return rest.partition("\nFROM ")[0]


def all_images(tag: str) -> list[Image]:
    """Everything that the demo runs; `tag` as of `product_tag`."""
    return [*product_images(tag), *trial_images(), livekit_image()]


def livekit_image(repository: Path = REPOSITORY) -> Image:
    mark = fingerprint(repository, ["hack/tools/livekit/go.sum", BINARY_DOCKERFILE])
    return Image("livekit/livekit-server:v1.13.5", mark, binary="livekit-server")


def node_images(repository: Path = REPOSITORY) -> list[Image]:
    """What a bare node needs before any pod: the pause container, and the cluster's DNS."""
    pause = fingerprint(repository, ["hack/images/pause/main.go", BINARY_DOCKERFILE])
    dns = fingerprint(repository, ["hack/tools/coredns/go.sum", BINARY_DOCKERFILE])
    return [
        Image("registry.k8s.io/pause:3.10", pause, binary="pause"),
        Image("localhost/coredns:v1.15.0", dns, binary="coredns"),
    ]
