"""Everything a room member gets to see besides sound, with the time of each thing."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from livekit import rtc

COST_TOPIC = "talktime.cost"


class Received:
    """Listens on a room from before the connection on. `events` are in order of arrival."""

    def __init__(self, room: rtc.Room) -> None:
        self._room = room
        self._tasks: set[asyncio.Task[None]] = set()
        self.events: list[dict[str, Any]] = []
        self.data: list[dict[str, Any]] = []
        self.texts: list[dict[str, Any]] = []
        room.on("data_received", self._on_data)
        room.on("transcription_received", self._on_transcription)
        room.on("participant_connected", lambda p: self._on_participant("participant_connected", p))
        room.on("participant_disconnected", lambda p: self._on_participant("participant_disconnected", p))
        room.on("participant_attributes_changed", lambda _, p: self._on_participant("attributes_changed", p))
        room.on("participant_metadata_changed", lambda p, *_: self._on_participant("metadata_changed", p))
        room.on("participant_name_changed", lambda p, *_: self._on_participant("name_changed", p))
        room.on("room_metadata_changed", lambda _, new: self.note("room_metadata_changed", metadata=new))
        for name in ("reconnecting", "reconnected", "moved"):
            room.on(name, lambda name=name: self.note(name))
        # The public API listens per topic. A leak would come on a topic that nobody told us about.
        room._text_stream_handlers = _EveryTopic(self._on_text)
        room._byte_stream_handlers = _EveryTopic(self._on_bytes)

    def note(self, event: str, /, **fields: Any) -> None:
        """One line of the timeline."""
        self.events.append({"at": time.time(), "event": event, **fields})

    def seen(self) -> dict[str, Any]:
        """What the room shows now: its name and metadata, and everybody's name, metadata, attributes."""
        people = {person.identity: _person(person) for person in self._room.remote_participants.values()}
        return {
            "room": {"name": self._room.name, "metadata": self._room.metadata},
            "me": _person(self._room.local_participant),
            "others": people,
        }

    async def settle(self) -> None:
        """Gives open text streams a moment to end."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)

    def _on_participant(self, event: str, person: rtc.Participant) -> None:
        self.note(event, **_person(person))

    def _on_data(self, packet: rtc.DataPacket) -> None:
        sender = packet.participant.identity if packet.participant else None
        text = packet.data.decode(errors="backslashreplace")
        self.data.append({"at": time.time(), "topic": packet.topic, "from": sender, "data": text})

    def _on_transcription(self, segments: list[rtc.TranscriptionSegment], person: Any, _: Any) -> None:
        sender = person.identity if person else None
        for segment in segments:
            self.texts.append({"at": time.time(), "topic": "transcription", "from": sender, "text": segment.text})

    def _on_text(self, reader: rtc.TextStreamReader, sender: str) -> None:
        self._keep(self._read_text(reader, sender))

    def _on_bytes(self, reader: rtc.ByteStreamReader, sender: str) -> None:
        self._keep(self._read_bytes(reader, sender))

    def _keep(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read_text(self, reader: rtc.TextStreamReader, sender: str) -> None:
        entry: dict[str, Any] = {"at": time.time(), "topic": reader.info.topic, "from": sender, "text": ""}
        entry["attributes"] = dict(reader.info.attributes or {})
        self.texts.append(entry)
        async for chunk in reader:
            entry["text"] += chunk

    async def _read_bytes(self, reader: rtc.ByteStreamReader, sender: str) -> None:
        entry = {"at": time.time(), "topic": reader.info.topic, "from": sender, "data": ""}
        self.data.append(entry)
        body = b"".join([chunk async for chunk in reader])
        # Not base64: whoever looks for a word in what was received must find it in binary messages, too.
        entry["data"] = body.decode(errors="backslashreplace")


class _EveryTopic(dict[str, Any]):
    """A handler table with one handler for whatever topic."""

    def __init__(self, handler: Any) -> None:
        super().__init__()
        self._handler = handler

    def get(self, key: str, default: Any = None) -> Any:
        return self._handler


def reason_name(reason: Any) -> str:
    """LiveKit's name of a disconnect reason."""
    try:
        return str(rtc.DisconnectReason.Name(reason))
    except (TypeError, ValueError):
        return str(reason)


def _person(person: rtc.Participant) -> dict[str, Any]:
    return {
        "identity": person.identity,
        "name": person.name,
        "metadata": person.metadata,
        "attributes": dict(person.attributes),
    }
