"""What was said so far, as text: kept with the ledger after every turn, given to the next agent if this one is lost.

Both providers are given it back before their first response (OpenAI as conversation items, Gemini as the turns before
its own); that costs nothing until then, and the meter counts it into W. The ledger encrypts it, and deletes it when the
session ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from livekit.agents import llm
from talktime_ledger.client import Fenced, LedgerError, SessionClosed
from talktime_ledger.core.worst_case import text_tokens_bound
from talktime_ledger.wire import Session
from talktime_ledger.wire.resume import MAX_ITEMS, MAX_TEXT, MOST_LOSSES, Checkpoint, ContextItem

from talktime_agent.ports import LedgerPort

logger = logging.getLogger("talktime.agent.context")

# Part of the context cap that may be filled with what is restored: the rest is for what is said next.
SHARE = 0.5
ATTEMPT_SECONDS = 3.0
RETRY_SECONDS = 2.0
# Words the provider puts around an item, in tokens; text_tokens_bound counts as many again.
ITEM_TOKENS = 8


def tokens_of(item: ContextItem) -> int:
    """An upper bound of the tokens an item costs as input."""
    return text_tokens_bound(item.text) + ITEM_TOKENS


def fitting(items: Sequence[ContextItem], cap_tokens: int) -> tuple[ContextItem, ...]:
    """The newest items that surely fit into the share of the context cap, oldest first."""
    left, kept = int(cap_tokens * SHARE), []
    for item in reversed(items):
        left -= tokens_of(item)
        if left < 0:
            break
        kept.append(item)
    return tuple(reversed(kept))


def chat_context(items: Iterable[ContextItem]) -> llm.ChatContext:
    """As livekit gives it to the provider, item by item."""
    context = llm.ChatContext.empty()
    for number, item in enumerate(items, start=1):
        context.add_message(role=item.role, content=item.text, id=f"before_{number}", created_at=float(number))
    return context


def interrupted(session: Session, before: Sequence[ContextItem]) -> bool:
    """Whether this agent takes up a conversation that had begun."""
    begun = any(event.name == "first_audio" for event in session.events)
    return session.epoch > 1 and (begun or session.turns > 0 or bool(before))


def only_goodbye(session: Session) -> bool:
    """Whether so many agents died of this session that this one only ends it, with words."""
    return session.losses > MOST_LOSSES


async def recall(ledger: LedgerPort, session: Session, cap_tokens: int) -> tuple[ContextItem, ...]:
    """What the agents before have heard and said, as far as it fits; nothing when that cannot be learned."""
    if session.epoch == 1:
        return ()
    try:
        async with asyncio.timeout(ATTEMPT_SECONDS):
            kept = await ledger.context(session.session_id)
    except (LedgerError, TimeoutError) as error:
        logger.warning("the conversation is not restored", extra={"why": str(error)})
        return ()
    return fitting(kept.items, cap_tokens)


class Memory:
    """The conversation of one session, and its way to the ledger: the newest state only, one request at a time."""

    def __init__(self, ledger: LedgerPort, session: Session, before: Sequence[ContextItem]) -> None:
        self._ledger = ledger
        self._session_id = session.session_id
        self._epoch = session.epoch
        self._items = list(before)
        self._changed = asyncio.Event()

    def said(self, role: str, text: str) -> None:
        """Somebody has said something; other roles and silence are not kept."""
        text = text.strip()
        if text and role in ("user", "assistant"):
            self._items.append(ContextItem.model_validate({"role": role, "text": text[:MAX_TEXT]}))
            del self._items[:-MAX_ITEMS]
            self._changed.set()

    def on_item(self, item: object) -> None:
        """livekit added an item to the conversation."""
        if isinstance(item, llm.ChatMessage):
            self.said(item.role, item.text_content or "")

    async def keep(self) -> None:
        """Until cancelled, or until the ledger says that it keeps nothing of this session."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            checkpoint = Checkpoint(epoch=self._epoch, items=tuple(self._items))
            try:
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    kept = await self._ledger.put_context(self._session_id, checkpoint)
            except (Fenced, SessionClosed):
                return
            except (LedgerError, TimeoutError) as error:
                logger.warning("what was said is not kept yet", extra={"why": str(error)})
                self._changed.set()
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if not kept:
                return
