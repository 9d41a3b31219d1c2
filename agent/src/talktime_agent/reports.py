"""Tells the ledger how the provider answered: once that it works, and each new fault; a Project's condition."""

from __future__ import annotations

import logging

from pydantic import SecretStr
from talktime_ledger.client import LedgerError
from talktime_ledger.wire import ProviderReport

from talktime_agent.ports import LedgerPort

logger = logging.getLogger("talktime.agent.reports")

MOST_CHARACTERS = 200


def harmless(message: str, key: SecretStr) -> str:
    """A provider's message without anything that looks like our key (providers quote parts of it)."""
    secret = key.get_secret_value()
    words = [
        word for word in message.split() if not word.startswith("sk-") and secret[:8] not in word and "*" not in word
    ]
    return " ".join(words)[:MOST_CHARACTERS]


class ProviderReports:
    """Of one session. A report that cannot be sent is dropped: the next session sees the same."""

    def __init__(self, ledger: LedgerPort, namespace: str, project: str, provider: str, key: SecretStr) -> None:
        self._ledger = ledger
        self._namespace = namespace
        self._project = project
        self._provider = provider
        self._key = key
        self._said: set[str] = set()

    async def works(self) -> None:
        """The provider has answered well."""
        await self._say("", ProviderReport(provider=self._provider, ok=True))

    async def fails(self, code: str, message: str) -> None:
        """The provider has refused us."""
        logger.error("the provider refused", extra={"code": code})
        report = ProviderReport(
            provider=self._provider, ok=False, code=code[:100], message=harmless(message, self._key)
        )
        await self._say(code, report)

    async def _say(self, code: str, report: ProviderReport) -> None:
        if code in self._said:
            return
        self._said.add(code)
        try:
            await self._ledger.report_provider(self._namespace, self._project, report)
        except LedgerError as error:
            logger.warning("provider report not sent", extra={"why": str(error)})
