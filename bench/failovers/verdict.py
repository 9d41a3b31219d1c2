"""What of a variant's samples is not as it is lawful under that fault, in words. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from bench.failovers.figures import Sample
from bench.failovers.variants import Place, Variant


def wrong(
    variant: Variant, samples: Sequence[Sample], places: Mapping[str, Place], restored: Collection[str]
) -> list[str]:
    """`places`: which LiveKit each server is; `restored`: sessions whose later agent knew what had been said."""
    found = []
    for number, one in enumerate(samples, 1):
        found += [f"{variant.name}{number}: {text}" for text in _of_one(variant, one, places, restored)]
    return found


def _of_one(variant: Variant, one: Sample, places: Mapping[str, Place], restored: Collection[str]) -> Iterator[str]:
    yield from (f"{guest}: its interview ended" for guest in sorted(one.ended))
    yield from (f"{guest} did not hear an agent again" for guest, at in one.again.items() if at is None)
    yield from (f"{guest} came into another session" for guest in sorted(one.renamed))
    if one.most_agents > 1:
        yield f"{one.most_agents} agents in a room"
    yield from _newcomer(variant, one, places)
    yield from _guests(variant, one, places)
    replaced = {*(one.moved if variant.elsewhere else ()), *one.restaffed}
    for guest in sorted(replaced):
        if one.again[guest] is not None and one.sessions.get(guest) not in restored:
            yield f"{guest}: the next agent did not know what had been said"
    for guest, at in one.restaffed.items():
        if at is None:
            yield f"{guest} got no other agent"
        elif one.last_agents.get(guest) != 1:
            yield f"{guest} had {one.last_agents.get(guest, 0)} agents at the end"
    if variant.calm and one.switches != 0:
        yield f"the pool switched: {one.switches}"
    if variant.calm and one.sfu_restarted is not False:
        yield "the process of the SFU is another one"
    if variant.agrees and one.agreed is None:
        yield "front doors and the pool's status never said the same"


def _newcomer(variant: Variant, one: Sample, places: Mapping[str, Place]) -> Iterator[str]:
    if not variant.newcomers:
        return
    place = places.get(one.new_server)
    if one.new is None:
        yield "the newcomer got no interview"
    elif place not in variant.newcomers:
        yield f"the newcomer is at {place or one.new_server}, not at {' or '.join(sorted(variant.newcomers))}"


def _guests(variant: Variant, one: Sample, places: Mapping[str, Place]) -> Iterator[str]:
    if variant.elsewhere:
        for guest, at in one.again.items():
            place = places.get(one.servers.get(guest, ""))
            if at is not None and (guest not in one.moved or place != "fallback"):
                yield f"{guest} is at {place or one.servers.get(guest)}, not at fallback"
    else:
        yield from (f"{guest} moved" for guest in sorted(one.moved))
    if not variant.breaks:
        yield from (f"{guest}: its connection broke" for guest in sorted(one.disturbed - one.moved))
