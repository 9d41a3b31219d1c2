"""Pools and fallbacks with their keys: which LiveKit a Project's or a session's room is on, and a client for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import aiohttp
from talktime_ledger.wire import DirectoryPool, DirectoryProject, Session, Unended

from .admission import pool_of
from .directory import FALLBACK, View
from .keyring import KeyRing
from .problems import Problem
from .rooms import Rooms
from .tokens import SfuKeys


@dataclass(frozen=True)
class Sfu:
    """One LiveKit with keys: all that is needed to make rooms and tokens on it. ``mode``: what its minutes cost as."""

    pool: DirectoryPool
    keys: SfuKeys
    rooms: Rooms

    @property
    def mode(self) -> Literal["selfhosted", "cloud"]:
        return "cloud" if self.pool.name.endswith(FALLBACK) else "selfhosted"


@dataclass(frozen=True)
class Route:
    """Where new rooms of a Project may go: the pool's own nodes, and its fallback if it has one and both have keys."""

    pool: DirectoryPool
    own: Sfu | None
    fallback: Sfu | None


class Media:
    """Finds pools and their keys; shares one HTTP session for all room services."""

    def __init__(self, http: aiohttp.ClientSession, keyring: KeyRing) -> None:
        self._http = http
        self._keyring = keyring

    def on(self, pool: DirectoryPool) -> Sfu | None:
        """The pool with its keys; None when its keys are not mounted (yet)."""
        keys = self._keyring.of(pool.namespace, pool.name)
        return None if keys is None else Sfu(pool, keys, Rooms(self._http, pool.internalURL, keys))

    def for_new(self, view: View, project: DirectoryProject) -> Route:
        """Where new rooms of the Project may go. Raises Problem 402 or 503 naming what is missing."""
        pool = pool_of(view, project)
        second = view.fallback(pool) if pool.fallbackMode != "Never" else None
        route = Route(pool, self.on(pool), self.on(second) if second is not None else None)
        if route.own is None and route.fallback is None:
            raise Problem(503, "PoolKeysMissing", f"no keys of SFU pool {pool.name!r} are mounted yet", retry_after=5)
        return route

    def route(self, view: View, project: DirectoryProject) -> Route | None:
        """Where rooms of sessions that run already may go: a paused Project's live sessions are not cut (law 5)."""
        try:
            return self.for_new(view, project.model_copy(update={"paused": False}))
        except Problem:
            return None

    def of(self, view: View, session: Session) -> Sfu | None:
        """Where a session's room was made; None when that pool or its keys are not known now."""
        pool = place(view, session)
        return None if pool is None else self.on(pool)


def place(view: View, session: Session | Unended) -> DirectoryPool | None:
    """The pool or fallback that a session's room was made on, whether or not its keys are here."""
    project = view.projects.get((session.namespace, session.project))
    pool = view.pool_named(session.media.pool)
    if pool is None and project is not None and not session.media.pool:
        pool = view.pools.get((project.pool.namespace, project.pool.name))
    if pool is not None and session.media.mode == "cloud":
        pool = view.fallback(pool)
    return pool
