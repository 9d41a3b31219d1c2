"""A pool's Secret is read, repaired and written; deleted, edited, lost or out of reach, its keys go on being good."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_operator.children.sfu_keys import AGGREGATE, SfuKeys, entries
from talktime_operator.kube import Kube, KubeError
from talktime_operator.names import Key, Owner
from talktime_operator.pools.fallback_keys import FallbackKeys
from talktime_operator.pools.pool_keys import LOOK, PoolKeys
from talktime_operator.pools.pool_secrets import PoolSecrets
from talktime_operator.pools.rotation import Keys, Pair, Stage, Step, Users, fingerprint

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
OLD, FRESH, MINE = Pair("APIold", "o" * 40), Pair("APIfresh", "f" * 40), Pair("APImine", "m" * 40)


class Cluster:
    """Secrets by name, as the API server keeps them; `away`: it does not answer."""

    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, str]] = {}
        self.writes: list[str] = []
        self.away = False

    async def get(self, kind: str, key: Key) -> dict[str, Any] | None:
        self._answer()
        data = self.secrets.get(key.name)
        return None if data is None else {"data": {k: base64.b64encode(v.encode()).decode() for k, v in data.items()}}

    async def apply(self, manifest: dict[str, Any]) -> dict[str, Any]:
        self._answer()
        name = manifest["metadata"]["name"]
        self.writes.append(name)
        self.secrets[name] = {k: base64.b64decode(v).decode() for k, v in manifest["data"].items()}
        return manifest

    def _answer(self) -> None:
        if self.away:
            raise KubeError("no connection", 0)


class World:
    def __init__(self, key: Key, owner: Owner) -> None:
        self.cluster, self.now = Cluster(), 0.0
        self.key, self.owner = key, owner
        self.keys = self.restarted()
        self.users = lambda keys: Users([fingerprint(keys.ring)], 1, 0)

    def restarted(self) -> PoolKeys:
        return PoolKeys(cast("Kube", self.cluster), b"seed", clock=lambda: self.now, fresh=lambda: FRESH)

    @property
    def secret(self) -> dict[str, str]:
        return self.cluster.secrets["sfu-eu-keys"]

    async def look(self, annotation: str = "", stuck: bool = False) -> Step:
        """After the time for another look. `stuck`: no node takes another ring."""
        self.now += LOOK
        users = (lambda keys: Users([""], 1, 0)) if stuck else self.users
        return await self.keys.advance(self.key, self.owner, annotation, users, NOW)


@pytest.fixture
def world(pool_key: Key, pool_owner: Owner) -> World:
    return World(pool_key, pool_owner)


async def test_a_new_pool_gets_keys_and_is_left_alone(world: World) -> None:
    assert (await world.look()).keys == Keys(FRESH)
    await world.look()
    assert world.cluster.writes == ["sfu-eu-keys"]
    assert len(world.secret["redis-password"]) == 40
    world.keys = world.restarted()
    assert (await world.look()).keys == Keys(FRESH)
    assert world.cluster.writes == ["sfu-eu-keys"]


async def test_the_secret_of_an_older_version_keeps_its_pair_and_password(world: World) -> None:
    old = {"api-key": OLD.api_key, "api-secret": OLD.api_secret, "keys.yaml": "x", "redis-password": "as it was"}
    world.cluster.secrets["sfu-eu-keys"] = old
    assert (await world.look()).keys == Keys(OLD)
    assert world.secret == entries(SfuKeys(Keys(OLD), "as it was"))


@pytest.mark.parametrize("remembered", [True, False])
async def test_a_deleted_secret_begins_a_rotation_from_the_pair_in_use(world: World, remembered: bool) -> None:
    world.cluster.secrets["sfu-eu-keys"] = entries(SfuKeys(Keys(OLD), "pw"))
    await world.look()
    await world.keys.write_aggregate("talktime", {world.key: Keys(OLD)})
    del world.cluster.secrets["sfu-eu-keys"]
    if not remembered:
        world.keys = world.restarted()
    taken = await world.look(stuck=True)
    assert (taken.keys.active, taken.keys.other, taken.keys.stage) == (OLD, FRESH, Stage.ADDING)
    assert world.secret["api-key"] == OLD.api_key
    assert json.loads(world.cluster.secrets[AGGREGATE]["talktime.eu.json"])["apiKey"] == OLD.api_key


async def test_an_edited_secret_begins_one_to_that_pair_and_shows_the_pair_in_use(world: World) -> None:
    world.cluster.secrets["sfu-eu-keys"] = entries(SfuKeys(Keys(OLD), "pw"))
    await world.look()
    world.secret.update({"api-key": MINE.api_key, "api-secret": MINE.api_secret})
    taken = await world.look(stuck=True)
    assert (taken.keys.active, taken.keys.other) == (OLD, MINE)
    assert world.secret["api-key"] == OLD.api_key
    assert (await world.look()).keys.active == MINE
    assert world.secret["api-key"] == MINE.api_key


async def test_an_old_copy_put_back_is_a_request_and_not_the_state(world: World) -> None:
    world.cluster.secrets["sfu-eu-keys"] = entries(SfuKeys(Keys(OLD), "pw"))
    await world.look()
    world.cluster.secrets["sfu-eu-keys"] = entries(SfuKeys(Keys(MINE), "pw"))
    taken = await world.look(stuck=True)
    assert (taken.keys.active, taken.keys.other, taken.keys.stage) == (OLD, MINE, Stage.ADDING)


async def test_without_the_api_server_what_is_known_stays(world: World) -> None:
    world.cluster.away = True
    with pytest.raises(KubeError):
        await world.look()
    world.cluster.away = False
    await world.look()
    world.cluster.away = True
    taken = await world.look("please")
    assert (taken.keys, taken.finding.reason) == (Keys(FRESH), "KeysSettled")
    world.cluster.away = False
    assert (await world.look("please", stuck=True)).keys.stage is Stage.ADDING


async def test_other_secrets_stay_known_too(pool_key: Key, pool_spec: Callable[..., SFUPoolSpec]) -> None:
    cluster, now = Cluster(), [0.0]
    redis = {"address": "r:1", "passwordSecretRef": {"name": "pw"}}
    fallback = {"mode": "Auto", "url": "wss://cloud", "secretRef": {"name": "cloud"}}
    spec = pool_spec(redis=redis, fallback=fallback)
    cluster.secrets = {"pw": {"password": "p"}, "cloud": {"api-key": "k", "api-secret": "s"}}
    secrets = PoolSecrets(cast("Kube", cluster), clock=lambda: now[0])
    fallbacks = FallbackKeys(cast("Kube", cluster), clock=lambda: now[0])
    before = await secrets.look(pool_key, spec), await fallbacks.look(pool_key, spec)
    assert before[0].password == "p"
    cluster.away, now[0] = True, 100.0
    assert (await secrets.look(pool_key, spec), await fallbacks.look(pool_key, spec)) == before
    with pytest.raises(KubeError):
        await secrets.look(pool_key, pool_spec(redis=redis | {"passwordSecretRef": {"name": "other"}}))
