"""Gathers what was seen of one Project, asks for a plan, acts on it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from talktime_ledger.client import Invalid, LedgerError
from talktime_ledger.resources.kinds import GROUP, VERSION
from talktime_ledger.resources.project import ProjectSpec
from talktime_ledger.wire import ProjectStatus

from talktime_operator import names
from talktime_operator.applier import Applier
from talktime_operator.children.access_secret import build_access_secret, derive_access_keys
from talktime_operator.children.agent_deployment import AgentSettings
from talktime_operator.children.agent_record import Record, build_agent_record
from talktime_operator.children.livekit_secret import LiveKitAccess, build_livekit_secret
from talktime_operator.children.standby import standby
from talktime_operator.cluster import Cluster
from talktime_operator.conditions import Finding
from talktime_operator.credentials import look_again, missing_secret
from talktime_operator.kube import Kube
from talktime_operator.ledger_sync import LedgerSync
from talktime_operator.metrics import scalings_total
from talktime_operator.names import Key, Owner
from talktime_operator.observed import Resource
from talktime_operator.pools.fallback_keys import Standby
from talktime_operator.pools.reconcile import Pools
from talktime_operator.projects.plan import Plan, Seen, plan, plan_invalid
from talktime_operator.scaling import IDLE_COST
from talktime_operator.settings import OperatorSettings
from talktime_operator.workers import WorkerLoads

logger = logging.getLogger(__name__)

INSTRUCTIONS_KEY = "instructions"
INSTRUCTIONS_CACHE = 30.0
RETRY_LEDGER = 5.0
WAIT_FOR_POOL = 0.5
RETRY_SECRET = 10.0
AGENTS, STANDBY = "agents", "standby"


class Projects:
    """Reconciles Projects."""

    def __init__(
        self,
        cluster: Cluster,
        kube: Kube,
        applier: Applier,
        ledger: LedgerSync,
        loads: WorkerLoads,
        pools: Pools,
        settings: OperatorSettings,
        seed: bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._kube = kube
        self._applier = applier
        self._ledger = ledger
        self._loads = loads
        self._pools = pools
        self._settings = settings
        self._agents = AgentSettings(
            settings.agent_image,
            settings.image_pull_policy,
            settings.ledger_url_for_agents,
            settings.agent_grace,
            settings.agent_ca_bundle(),
        )
        self._seed = seed
        self._clock = clock
        self._records: dict[str, Record] = {}
        self._probe_at: dict[str, float] = {}
        self._fewer_since: dict[tuple[str, str], float] = {}
        self._texts: dict[Key, tuple[str | None, float]] = {}

    async def reconcile(self, key: Key) -> float:
        """Returns seconds until it should be looked at again, 0 = not before something changes."""
        resource = self._cluster.project(key)
        if resource is None:
            return await self._gone(key)
        resource = replace(resource, status=self._applier.status(resource.uid, resource.status))
        if resource.spec is None:
            return await self._write(resource, plan_invalid(resource, datetime.now(UTC)))
        if not self._pools.judged(Key(self._settings.namespace, resource.spec.media.pool_ref.name)):
            return WAIT_FOR_POOL
        seen, retry = await self._gather(resource, resource.spec)
        planned = plan(seen)
        await self._scale_marks(seen, planned)
        await self._applier.apply_children(planned.children)
        seen, push_retry = await self._push(seen, planned)
        cooling = self._cooling(resource.uid, AGENTS, planned.needs_fewer)
        cooling = _earliest(cooling, self._cooling(resource.uid, STANDBY, planned.standby_needs_fewer))
        retry = _earliest(retry, push_retry, cooling, look_again(seen.pods, seen.ledger, seen.now))
        return _earliest(retry, await self._write(resource, plan(seen)))

    async def _gather(self, resource: Resource[ProjectSpec], spec: ProjectSpec) -> tuple[Seen, float]:
        key, release = resource.key, self._settings.namespace
        pool = Key(release, spec.media.pool_ref.name)
        view, livekit = self._pools.view(pool)
        reserve = self._pools.standby(pool)
        record, blocked, retry = await self._secrets(resource, livekit, reserve)
        instructions, problem = await self._instructions(key, spec)
        pods = self._cluster.pods_of_project(key)
        seen = Seen(
            resource=resource,
            spec=spec,
            now=datetime.now(UTC),
            release_namespace=release,
            pool=view,
            pool_names=tuple(p.key.name for p in self._cluster.pools() if p.key.namespace == release),
            livekit=livekit,
            deployment=self._cluster.child("Deployment", Key(key.namespace, names.agent(key.name))),
            pods=pods,
            loads={p.uid: self._loads.jobs(p.uid) for p in pods},
            ledger=self._known(resource),
            ledger_reachable=self._ledger.reachable,
            ledger_silence=self._ledger.silence,
            instructions=instructions,
            instructions_problem=problem,
            record=record,
            next_keys=derive_access_keys(self._seed, resource.uid, record.epoch + 1),
            blocked=blocked,
            fewer_for=self._since(resource.uid, AGENTS),
            fewer_after=self._settings.scale_down_after,
            agents=self._agents,
            standby=reserve,
            standby_deployment=self._cluster.child("Deployment", Key(key.namespace, standby(key.name))),
            standby_fewer_for=self._since(resource.uid, STANDBY),
        )
        return seen, _earliest(retry, INSTRUCTIONS_CACHE if spec.agent.config_map_ref is not None else 0.0)

    async def _secrets(
        self, resource: Resource[ProjectSpec], livekit: LiveKitAccess | None, reserve: Standby | None
    ) -> tuple[Record, Finding | None, float]:
        """Creates what is missing without ever reading a Secret; returns the record as it is now."""
        key, owner = resource.key, _owner(resource)
        record = self._record(resource)
        blocked, retry = None, 0.0
        lost = missing_secret(self._cluster.pods_of_project(key))
        made = {record.livekit_secret, record.standby_secret} - {lost[0] if lost is not None else ""}
        if livekit is not None and (name := livekit.secret_name(key.name)) not in made:
            await self._kube.create(build_livekit_secret(key, owner, livekit))
            record = replace(record, livekit_secret=name)
        if reserve is not None and (name := reserve.access.secret_name(key.name)) not in made:
            await self._kube.create(build_livekit_secret(key, owner, reserve.access))
            record = replace(record, standby_secret=name)
        if record.epoch < 0:
            # Remembered first: a crash after creating must not leave keys behind that nobody can verify.
            keys = derive_access_keys(self._seed, resource.uid, 0)
            ahead = replace(record, epoch=0, keys=keys.hashes())
            await self._applier.apply_children([build_agent_record(key, owner, ahead)])
            if await self._kube.create(build_access_secret(key, owner, keys)):
                record = ahead
            else:
                await self._applier.apply_children([build_agent_record(key, owner, record)])
                text = (
                    f"Secret {names.access_secret(key.name)!r} is there but was not made for this Project: delete it"
                    " and it is made anew"
                )
                blocked, retry = Finding("Ready", "False", "AccessSecretConflict", text), RETRY_SECRET
        else:
            # Spread after a restart.
            first = self._clock() + random.uniform(0, self._settings.access_probe)
            if self._clock() >= self._probe_at.setdefault(resource.uid, first):
                keys = derive_access_keys(self._seed, resource.uid, record.epoch + 1)
                self._probe_at[resource.uid] = self._clock() + self._settings.access_probe
                if await self._kube.create(build_access_secret(key, owner, keys)):
                    logger.info("access Secret was deleted, made with new keys", extra={"project": str(key)})
                    record = replace(record, epoch=keys.epoch, keys=keys.hashes())
            retry = max(self._probe_at[resource.uid] - self._clock(), 0.1)
        self._records[resource.uid] = record
        return record, blocked, retry

    def _record(self, resource: Resource[ProjectSpec]) -> Record:
        if resource.uid in self._records:
            return self._records[resource.uid]
        child = self._cluster.child("ConfigMap", Key(resource.key.namespace, names.record(resource.key.name)))
        if child is None or child.owner_uid != resource.uid:
            return Record()
        return Record.parse(child.data)

    async def _instructions(self, key: Key, spec: ProjectSpec) -> tuple[str | None, str]:
        if spec.agent.instructions is not None:
            return spec.agent.instructions, ""
        if spec.agent.config_map_ref is None:
            return None, "exactly one of spec.agent.instructions and spec.agent.configMapRef must be set"
        where = Key(key.namespace, spec.agent.config_map_ref.name)
        text, at = self._texts.get(where, (None, float("-inf")))
        if self._clock() - at >= INSTRUCTIONS_CACHE:
            body = await self._kube.get("ConfigMap", where)
            text = (body.get("data") or {}).get(INSTRUCTIONS_KEY) if body is not None else None
            self._texts[where] = (text, self._clock())
        problem = (
            f"spec.agent.configMapRef.name: no ConfigMap {where.name!r} with the key {INSTRUCTIONS_KEY!r}"
            f" in namespace {key.namespace!r}; create it"
        )
        return text, "" if text is not None else problem

    def _known(self, resource: Resource[ProjectSpec]) -> ProjectStatus | None:
        known = self._ledger.statuses.get(resource.key)
        return None if known is None or known.deleted else known

    async def _scale_marks(self, seen: Seen, planned: Plan) -> None:
        """Deletion costs go first: the ReplicaSet reads them when the Deployment shrinks."""
        for pod in planned.give_up:
            await self._kube.set_deletion_cost(pod, IDLE_COST)
        if seen.deployment is not None and planned.decision is not None and seen.deployment.replicas is not None:
            change = planned.decision.replicas - seen.deployment.replicas
            if change:
                scalings_total.labels("up" if change > 0 else "down").inc()

    def _since(self, uid: str, which: str) -> float:
        """Seconds for which fewer agents were needed."""
        since = self._fewer_since.get((uid, which))
        return self._clock() - since if since is not None else 0.0

    def _cooling(self, uid: str, which: str, needs_fewer: bool) -> float:
        if not needs_fewer:
            self._fewer_since.pop((uid, which), None)
            return 0.0
        since = self._fewer_since.setdefault((uid, which), self._clock())
        return max(1.0, self._settings.scale_down_after - (self._clock() - since))

    async def _push(self, seen: Seen, planned: Plan) -> tuple[Seen, float]:
        if planned.push is None:
            return seen, 0.0
        try:
            await self._ledger.push_project(seen.resource.key, planned.push)
        except Invalid as error:
            text = f"the ledger refuses this Project: {error}"[:1900]
            return replace(seen, blocked=Finding("Ready", "False", "LedgerRefused", text)), RETRY_LEDGER * 6
        except LedgerError as error:
            logger.warning("not pushed: %s", error, extra={"project": str(seen.resource.key)})
            return self._with_ledger(seen), RETRY_LEDGER
        return self._with_ledger(seen), 0.0

    def _with_ledger(self, seen: Seen) -> Seen:
        return replace(
            seen,
            ledger=self._known(seen.resource),
            ledger_reachable=self._ledger.reachable,
            ledger_silence=self._ledger.silence,
        )

    async def _write(self, resource: Resource[ProjectSpec], planned: Plan) -> float:
        return await self._applier.write_status(_owner(resource), resource.key, resource.status, planned.status)

    async def _gone(self, key: Key) -> float:
        """No Project of this name in the index. The ledger is told only after the API server said 404 itself."""
        if await self._kube.get("Project", key) is not None:
            return RETRY_LEDGER
        known = self._ledger.statuses.get(key)
        if known is not None and not known.deleted:
            try:
                await self._ledger.delete_project(key)
            except LedgerError as error:
                logger.warning("deletion not told yet: %s", error, extra={"project": str(key)})
                return RETRY_LEDGER
        account = Key(key.namespace, names.agent(key.name))
        if not self._cluster.pods_of_project(key) and self._cluster.child("ServiceAccount", account) is not None:
            # Last, and only when no pod holds a session: their tokens live as long as this ServiceAccount.
            await self._kube.delete("ServiceAccount", account)
        return 0.0


def _owner(resource: Resource[ProjectSpec]) -> Owner:
    return Owner(f"{GROUP}/{VERSION}", "Project", resource.key.name, resource.uid)


def _earliest(*seconds: float) -> float:
    due = [s for s in seconds if s > 0]
    return min(due) if due else 0.0
