"""Interviews that run while something breaks, and the sessions that they are in the ledger."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from hack.chaos import victims
from hack.chaos.house import House, eventually
from hack.chaos.projects import HOME, NAMESPACE
from hack.chaos.victims import Victim
from hack.demo.interviews import Held, Round, hold

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Live:
    """Interviews of one Project that have begun: the processes that serve them, and the participants' own account."""

    project: str
    victims: tuple[Victim, ...]
    held: Future[Held]

    @property
    def sessions(self) -> tuple[str, ...]:
        return tuple(victim.session for victim in self.victims)

    @property
    def victim(self) -> Victim:
        """The only one."""
        [one] = self.victims
        return one


@contextlib.contextmanager
def started(house: House, rounds: list[Round], folder: Path, tell: Tell) -> Iterator[dict[str, Live]]:
    """Holds all rounds side by side; yields, by Project, once every interview is under way. Waits for their ends."""
    before = {row["id"] for row in house.rows("SELECT id::text AS id FROM sessions")}
    with ThreadPoolExecutor(len(rounds)) as pool:
        futures = {
            one.project: pool.submit(
                hold, house.kube, house.images, replace(one, node=HOME), folder / one.project, _naming(tell, one)
            )
            for one in rounds
        }
        live = {}
        for one in rounds:
            sessions = _opened(house, one, before, futures[one.project])
            serving = tuple(victims.serving(house, session) for session in sessions)
            live[one.project] = Live(one.project, serving, futures[one.project])
        for each in live.values():
            for victim in each.victims:
                victims.talking(victim)
        tell(f"under way: {', '.join(f'{len(each.victims)} of {name}' for name, each in live.items())}")
        yield live
        for future in futures.values():
            future.result()


def _naming(tell: Tell, one: Round) -> Tell:
    return lambda line: tell(f"{one.project}: {line}")


def _opened(house: House, wanted: Round, before: set[str], held: Future[Held]) -> list[str]:
    """The new sessions of the round's Project, once all have an agent."""
    query = f"""SELECT s.id::text AS id FROM sessions s JOIN projects p ON p.id = s.project_id
                WHERE p.namespace = '{wanted.namespace}' AND p.name = '{wanted.project}' AND s.worker IS NOT NULL"""

    def all_there() -> list[str] | None:
        if held.done() and (error := held.exception()) is not None:
            raise AssertionError(f"the participants of {wanted.project} are gone") from error
        found = [row["id"] for row in house.rows(query) if row["id"] not in before]
        return found if len(found) >= wanted.count else None

    return eventually(f"{wanted.count} sessions of {wanted.project}", all_there, 300, every=1)


def ordinary(project: str, count: int, seconds: float) -> Round:
    """People who talk for at least so long and then leave."""
    return Round(NAMESPACE, project, count, count, min_seconds=seconds, max_seconds=seconds + 120)


def until_ended(project: str, most_seconds: float, count: int = 1) -> Round:
    """People who stay until the other side ends the interview, or patience."""
    return Round(NAMESPACE, project, count, count, max_seconds=most_seconds, stay=True)


def closed(house: House, sessions: tuple[str, ...], seconds: float) -> None:
    """Until the ledger has closed all of them."""
    wanted = ", ".join(f"'{session}'" for session in sessions)

    def over() -> bool:
        states = house.rows(f"SELECT id::text AS id FROM sessions WHERE id IN ({wanted}) AND state = 'open'")
        return not states

    eventually(f"closed: {', '.join(sessions)}", over, seconds, every=1)
