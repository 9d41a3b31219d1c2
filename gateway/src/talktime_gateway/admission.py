"""May this credential have a session of this Project, and on which pool? Pure; the ledger decides about money."""

from __future__ import annotations

from dataclasses import dataclass

from talktime_ledger.wire import DirectoryPool, DirectoryProject

from .credentials import Kind, Presented, matches
from .directory import View
from .problems import Problem


@dataclass(frozen=True)
class Caller:
    """A credential that belongs here. A ticket is only known by its looks until it opens a session at the ledger."""

    kind: Kind
    project: DirectoryProject


def unauthorized() -> Problem:
    """The one answer to every credential that is not good here."""
    return Problem(401, "CredentialInvalid", "a valid access key or ticket of this project is needed")


def not_found() -> Problem:
    """No such Project, for somebody who may know."""
    return Problem(404, "ProjectNotFound", "no such project")


def identify(presented: Presented | None, view: View | None, namespace: str, name: str) -> Caller:
    """Credential, then Project. Raises Problem 401, 404, or 503 before the first directory.

    A key is told 404 only when it is good somewhere: a stranger cannot find out which Projects exist.
    """
    if presented is None:
        raise unauthorized()
    if view is None:
        raise Problem(503, "DirectoryMissing", "the gateway has not heard from the ledger yet", retry_after=2)
    project = view.projects.get((namespace, name))
    if presented.kind is Kind.TICKET:
        if project is None or project.deleted:
            raise not_found()
        return Caller(presented.kind, project)
    if project is not None and matches(presented, project.accessKeys):
        if project.deleted:
            raise not_found()
        return Caller(presented.kind, project)
    if project is None and matches(presented, view.all_keys()):
        raise not_found()
    raise unauthorized()


def pool_of(view: View, project: DirectoryProject) -> DirectoryPool:
    """The Project's pool. Raises Problem 402 (paused) or 503 with what is missing."""
    if project.paused:
        raise Problem(402, "Paused", "the project is paused: live sessions wrap up, new ones are not admitted")
    pool = view.pools.get((project.pool.namespace, project.pool.name))
    if pool is None:
        raise Problem(503, "PoolUnknown", f"there is no SFU pool {project.pool.name!r}", retry_after=10)
    return pool
