"""The items of one connection, in order, and what each of them weighs in the next prompt."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import Any

from .prompt import Part, Prompt, Truncation, retained
from .settings import InvalidRequestError
from .tokens import Tokens, assistant_audio_tokens, text_tokens, user_audio_tokens

BYTES_PER_MS = 48
"""PCM16 mono at 24 kHz."""
TRUNCATE_TOLERANCE_MS = 100
"""A player may be a frame ahead of the audio it got; further is an error, as in the API."""


@dataclass(slots=True)
class Item:
    """`body` is the API's item; `audio_ms` is how long its audio is (never kept)."""

    id: str
    body: dict[str, Any]
    tokens: Tokens
    audio_ms: float = 0.0


@dataclass(slots=True)
class Conversation:
    """Ordered items. What truncation once dropped stays dropped, so that the rest can be cached."""

    items: list[Item] = field(default_factory=list)
    forgotten: set[str] = field(default_factory=set)

    @property
    def last_id(self) -> str | None:
        return self.items[-1].id if self.items else None

    def get(self, item_id: str) -> Item | None:
        return next((item for item in self.items if item.id == item_id), None)

    def insert(self, item: Item, after: str | None = None) -> str | None:
        """Puts `item` behind `after` ("root": first; None: last) and returns the id in front of it.

        Raises InvalidRequestError for a known id or an unknown predecessor.
        """
        if self.get(item.id):
            raise InvalidRequestError("item_create_duplicate_item_id", f"item {item.id} already exists", "item.id")
        if after == "root":
            self.items.insert(0, item)
            return None
        if after is None:
            previous = self.last_id
            self.items.append(item)
            return previous
        known = self.get(after)
        if known is None:
            raise InvalidRequestError(
                "item_create_invalid_previous_item_id", f"item {after} does not exist", "previous_item_id"
            )
        self.items.insert(self.items.index(known) + 1, item)
        return after

    def delete(self, item_id: str) -> None:
        """Raises InvalidRequestError for an unknown id."""
        item = self.get(item_id)
        if item is None:
            raise InvalidRequestError("item_delete_invalid_item_id", f"item {item_id} does not exist", "item_id")
        self.items.remove(item)

    def truncate(self, item_id: str, audio_end_ms: int) -> None:
        """Cuts what the user did not hear; the transcript goes with it, as in the API.

        Raises InvalidRequestError for anything but an assistant's audio that is at least this long.
        """
        item = self.get(item_id)
        if item is None or item.body.get("role") != "assistant":
            raise InvalidRequestError("invalid_value", f"item {item_id} is no assistant message", "item_id")
        if audio_end_ms > item.audio_ms + TRUNCATE_TOLERANCE_MS:
            raise InvalidRequestError(
                "invalid_value", f"audio content of {item.audio_ms:.0f} ms is already shorter", "audio_end_ms"
            )
        item.audio_ms = min(item.audio_ms, float(audio_end_ms))
        item.tokens = Tokens(audio=assistant_audio_tokens(item.audio_ms))

    def prompt(self, tools: str, instructions: str, policy: Truncation) -> Prompt:
        """The prompt of a response over this conversation; remembers what had to be dropped.

        Raises ContextOverflowError.
        """
        parts = tuple(Part(item.id, item.tokens) for item in self.items if item.id not in self.forgotten)
        kept = retained(parts, policy)
        self.forgotten |= {part.id for part in parts} - {part.id for part in kept}
        return Prompt(tools, instructions, kept)


def item_of(body: dict[str, Any], item_id: str) -> Item:
    """An item that the client wrote. Raises InvalidRequestError for what the API would not take."""
    kind = body.get("type")
    if kind == "function_call":
        text = f"{body.get('name', '')}{body.get('arguments', '')}"
        return Item(item_id, {**body, "id": item_id, "object": "realtime.item"}, Tokens(text=text_tokens(text)))
    if kind == "function_call_output":
        text = str(body.get("output", ""))
        return Item(item_id, {**body, "id": item_id, "object": "realtime.item"}, Tokens(text=text_tokens(text)))
    if kind != "message" or body.get("role") not in ("system", "user", "assistant"):
        raise InvalidRequestError("invalid_value", f"item of type {kind!r} is not simulated", "item.type")
    tokens, audio_ms, content = Tokens(), 0.0, []
    for part in body.get("content") or []:
        known = {"input_text": "text", "output_text": "text", "input_audio": "audio", "output_audio": "audio"}
        if known.get(part.get("type")) == "text":
            tokens += Tokens(text=text_tokens(part.get("text") or ""))
            content.append(part)
        elif known.get(part.get("type")) == "audio":
            length = _audio_ms(part.get("audio") or "")
            counted = user_audio_tokens if body["role"] == "user" else assistant_audio_tokens
            audio_ms += length
            tokens += Tokens(audio=counted(length))
            content.append({key: value for key, value in part.items() if key != "audio"})
        else:
            raise InvalidRequestError("invalid_value", f"content {part.get('type')!r} is not simulated", "item.content")
    wire = {
        "id": item_id,
        "object": "realtime.item",
        "type": "message",
        "role": body["role"],
        "status": "completed",
        "content": content,
    }
    return Item(item_id, wire, tokens, audio_ms)


def spoken_user_item(item_id: str, milliseconds: float) -> Item:
    """The user item of committed audio."""
    body = {
        "id": item_id,
        "object": "realtime.item",
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_audio", "transcript": None}],
    }
    return Item(item_id, body, Tokens(audio=user_audio_tokens(milliseconds)), milliseconds)


def input_prompt(entries: list[dict[str, Any]], conversation: Conversation, tools: str, instructions: str) -> Prompt:
    """The prompt of a response with its own `input`: given items and references to known ones."""
    parts = []
    for number, body in enumerate(entries):
        if body.get("type") == "item_reference":
            known = conversation.get(str(body.get("id")))
            if known is None:
                raise InvalidRequestError("invalid_value", f"item {body.get('id')} does not exist", "response.input")
            parts.append(Part(known.id, known.tokens))
        else:
            key = body.get("id") or f"input-{number}-{json.dumps(body, sort_keys=True)}"
            parts.append(Part(key, item_of(body, key).tokens))
    return Prompt(tools, instructions, tuple(parts))


def _audio_ms(encoded: str) -> float:
    try:
        return len(base64.b64decode(encoded, validate=True)) / BYTES_PER_MS
    except binascii.Error as error:
        raise InvalidRequestError("invalid_value", "audio is not base64", "item.content.audio") from error
