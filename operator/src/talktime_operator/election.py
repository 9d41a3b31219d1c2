"""One acting replica: a Lease, held through the official client's election, given back on a clean exit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from talktime_operator.settings import OperatorSettings

logger = logging.getLogger(__name__)


class LeaseLost(RuntimeError):  # noqa: N818
    """Another replica may act now: this process must end at once, and its kubelet starts it anew as a follower."""


class PatientLeaseLock(LeaseLock):
    """The official lock, but a connection that fails is a try that failed: an outage of the API server must not end the
    process before the Lease has run out."""

    async def get(self, name: str, namespace: str) -> Any:
        try:
            return await super().get(name, namespace)
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            return False, ApiException(status=0, reason=f"{type(error).__name__}: {error}")

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        # Not the inherited one: kubernetes 37.0.2 sends pretty=True there, which its own model refuses.
        lease = client.V1Lease(metadata=client.V1ObjectMeta(name=name), spec=self.update_lease(election_record))
        try:
            await self.api_instance.create_namespaced_lease(namespace, lease)
            return True
        except (ApiException, OSError, TimeoutError, aiohttp.ClientError) as error:
            logger.warning("the Lease was not made: %s", error)
            return False

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        try:
            return await super().update(name, namespace, updated_record)
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            logger.warning("the Lease was not renewed: %s", error)
            return False


class Election:
    """`run` waits for the Lease, then runs `lead` until it ends or the Lease is lost."""

    def __init__(self, api: client.ApiClient, settings: OperatorSettings) -> None:
        self._api = api
        self._settings = settings
        self._lock = PatientLeaseLock(settings.lease_name, settings.namespace, settings.pod_name, api)
        self.leading = False

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Raises LeaseLost; whatever `lead` raises; returns when `lead` does."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def started() -> None:
            self.leading = True
            try:
                await lead()
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(None)

        async def stopped() -> None:
            self.leading = False
            if not done.done():
                done.set_exception(LeaseLost("the Lease was lost"))

        settings = self._settings
        election = LeaderElection(
            Config(
                self._lock,
                lease_duration=settings.lease_duration,
                renew_deadline=settings.lease_renew_deadline,
                retry_period=settings.lease_retry,
                onstarted_leading=started,
                onstopped_leading=stopped,
            )
        )
        task = asyncio.create_task(election.run())
        try:
            finished, _ = await asyncio.wait({task, done}, return_when=asyncio.FIRST_COMPLETED)
            if task in finished and not done.done():
                task.result()
                raise LeaseLost("the election ended")
            await done
        finally:
            task.cancel()
            if self.leading:
                await self._release()

    async def _release(self) -> None:
        """The next replica need not wait for the Lease to run out."""
        body: dict[str, Any] = {"spec": {"holderIdentity": None, "leaseDurationSeconds": 1}}
        try:
            await client.CoordinationV1Api(self._api).patch_namespaced_lease(
                self._settings.lease_name,
                self._settings.namespace,
                body,
                _content_type="application/merge-patch+json",
                _request_timeout=3,
            )
        except (TimeoutError, ApiException, OSError) as error:
            logger.warning("the Lease was not given back: %s", error)
        self.leading = False
