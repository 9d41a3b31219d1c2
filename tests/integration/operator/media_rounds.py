"""Rounds of the operator's questions to one livekit-server, run inside a network namespace; a JSON line per round."""

from __future__ import annotations

import asyncio
import json
import sys

import aiohttp
import httpx
from talktime_ledger.resources.pool import Ports
from talktime_operator.media_probe import MediaProbe
from talktime_operator.media_watch import MediaWatch
from talktime_operator.names import Key
from talktime_operator.observed import Pod
from talktime_operator.sfu_health import SfuHealth
from talktime_operator.sfu_probe import Probe
from talktime_operator.sfu_reading import PoolTarget, Target

EU = Key("talktime", "eu")
PAUSE = 0.3


async def main(address: str, key: str, secret: str) -> None:
    marks = {"project": "", "pool": "eu", "component": "sfu", "deletion_cost": "", "waiting": ()}
    state = {"phase": "Running", "ready": True, "terminating": False}
    place = {"ip": address, "host_ip": address, "node": "machine"}
    pod = Pod(Key("talktime", "sfu-eu-0-0"), "uid", **marks, **state, **place)
    # A look in every round: most of the time somebody looks.
    nodes = (Target(pod, EU, Ports(), 3),)
    pool = PoolTarget(EU, nodes, PAUSE, 3, (key, secret), media=True, media_interval=PAUSE)

    async def reachable() -> bool:
        return True

    async with httpx.AsyncClient(trust_env=False) as http, aiohttp.ClientSession() as sockets:
        media = MediaWatch(MediaProbe(http, sockets))
        health = SfuHealth(Probe(http), 20.0, reachable, media=media)
        while True:
            await health.round([pool])
            seen, node = health.evidence(EU), health.nodes(["uid"]).get("uid")
            told = {"verdict": seen.streak.verdict, "cause": seen.cause.value, "media": seen.media.verdict}
            told |= {"sick": seen.sick, "message": seen.message}
            told |= {"node": node.health, "rooms": node.rooms} if node is not None else {}
            told |= {"bad": sorted(s.answer.name for s in health.sick(["uid"]).values())}
            print(json.dumps(told), flush=True)
            await asyncio.sleep(PAUSE)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
