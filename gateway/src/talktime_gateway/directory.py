"""Projects, pools and key hashes as the ledger has them. The last good copy serves on while the ledger is away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from talktime_ledger.wire import AccessKey, Directory, DirectoryPool, DirectoryProject, NodeState

FALLBACK = "_fallback"
"""Ends the name of a pool's fallback, here and in the file of its keys; no SFUPool can be called so."""

CUT_SEC = 60.0
"""For so long a node that was cut is remembered: its pod leaves the directory before its participants ask again."""


@dataclass(frozen=True)
class View:
    """One directory, indexed. The fallback of pool `eu` is a pool of its own, `eu_fallback`, without nodes: which ones
    its rooms are on is that LiveKit's affair. `cut`: when nodes by id were last told to be cut (Moving)."""

    projects: dict[tuple[str, str], DirectoryProject]
    pools: dict[tuple[str, str], DirectoryPool]
    cut: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, directory: Directory, cut: Mapping[str, float] | None = None) -> View:
        """Index by namespace and name."""
        return cls(
            {(p.namespace, p.name): p for p in directory.projects},
            {(p.namespace, p.name): p for pool in directory.pools for p in (pool, fallback_of(pool)) if p is not None},
            dict(cut or {}),
        )

    def moving(self) -> set[str]:
        """Ids of nodes that are being cut now."""
        nodes = (node for pool in self.pools.values() for node in pool.nodes)
        return {node.nodeID for node in nodes if node.state is NodeState.MOVING and node.nodeID}

    def was_cut(self, node_id: str, now: float) -> bool:
        """Whether it is being cut, or was a moment ago."""
        return node_id in self.moving() or now - self.cut.get(node_id, float("-inf")) <= CUT_SEC

    def all_keys(self) -> list[AccessKey]:
        """Every access key of every Project."""
        return [key for project in self.projects.values() for key in project.accessKeys]

    def pool_named(self, name: str) -> DirectoryPool | None:
        """The pool a session was opened on; pools live in one namespace, so the name is enough."""
        return next((pool for (_, pool_name), pool in self.pools.items() if pool_name == name), None)

    def fallback(self, pool: DirectoryPool) -> DirectoryPool | None:
        """The second LiveKit of a pool."""
        return self.pools.get((pool.namespace, pool.name + FALLBACK))


def fallback_of(pool: DirectoryPool) -> DirectoryPool | None:
    """A pool's fallback as a pool."""
    if pool.fallbackURL is None:
        return None
    return DirectoryPool(
        namespace=pool.namespace,
        name=pool.name + FALLBACK,
        publicURL=pool.fallbackURL,
        internalURL=pool.fallbackURL,
    )


@dataclass
class Cache:
    """The view in use and when the ledger last confirmed it (monotonic seconds)."""

    view: View | None = field(default=None)
    etag: str | None = field(default=None)
    confirmed_at: float | None = field(default=None)

    def replace(self, directory: Directory, etag: str | None, now: float) -> None:
        """A new directory. Who was being cut in the one before has been so until now."""
        before = self.view
        kept = {} if before is None else {one: at for one, at in before.cut.items() if now - at <= CUT_SEC}
        left = {} if before is None else dict.fromkeys(before.moving(), now)
        self.view, self.etag, self.confirmed_at = View.of(directory, kept | left), etag, now

    def confirm(self, now: float) -> None:
        """The ledger says: unchanged."""
        self.confirmed_at = now

    def age(self, now: float) -> float | None:
        """Seconds since the last confirmation; None before the first directory."""
        return None if self.confirmed_at is None else max(0.0, now - self.confirmed_at)
