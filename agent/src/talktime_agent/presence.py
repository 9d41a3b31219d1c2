"""Whether there is somebody to talk to: the participant, and the media path to them. Times in monotonic seconds."""

from __future__ import annotations

from collections.abc import Callable

from livekit import rtc

# Who says goodbye may be on the way to another connection: livekit-client says it before it makes a broken one anew
# (RTCEngine.restartConnection), our helper before it follows the front door, a page before it is loaded again.
LEFT_SECONDS = 4.0


class Presence:
    """Watches a room for one participant's going and for the connection's state."""

    def __init__(
        self, participant: str, *, rejoin_grace: float, reconnect_limit: float, monotonic: Callable[[], float]
    ) -> None:
        self._participant = participant
        self._rejoin_grace = rejoin_grace
        self._reconnect_limit = reconnect_limit
        self._monotonic = monotonic
        self._gone_at: float | None = None
        self._down_at: float | None = None
        self._left = False
        self._room_over = False
        self._removed = False

    @property
    def there(self) -> bool:
        """Whether the participant can hear now."""
        return self._gone_at is None and self._down_at is None and not self._room_over

    def over(self) -> str | None:
        """Why there is nobody to talk to any more, None while there may be."""
        now = self._monotonic()
        if self._removed:
            # Only the gateway does that, before it sends another agent: the room is that agent's.
            return "fenced"
        if self._room_over:
            return "room_closed"
        if self._down_at is not None:
            # Whoever goes while our own path is broken went from our sight: that says nothing about them.
            return "reconnect_timeout" if now - self._down_at > self._reconnect_limit else None
        grace = LEFT_SECONDS if self._left else self._rejoin_grace
        if self._gone_at is not None and now - self._gone_at > grace:
            return "participant_left"
        return None

    def joined(self, identity: str) -> None:
        """Somebody came (back)."""
        if identity == self._participant:
            self._gone_at, self._left = None, False

    def went(self, identity: str, *, on_purpose: bool) -> None:
        """Somebody went. They may come back; who goes on purpose has less time for it."""
        if identity == self._participant:
            self._gone_at, self._left = self._monotonic(), on_purpose

    def down(self) -> None:
        """The media path is broken."""
        self._down_at = self._down_at if self._down_at is not None else self._monotonic()

    def up(self) -> None:
        """The media path is back. Who is not there yet has their time from now on."""
        self._down_at = None
        if self._gone_at is not None:
            self._gone_at = self._monotonic()

    def ended(self, *, removed: bool = False) -> None:
        """The room is over for us; ``removed``: for us alone."""
        self._room_over = True
        self._removed = self._removed or removed

    def watch(self, room: rtc.Room, *, on_down: Callable[[], None], on_up: Callable[[], None]) -> None:
        """Follows a room's events; ``on_down``/``on_up`` when nobody can hear, and when they can again."""

        @room.on("participant_connected")
        def _joined(participant: rtc.RemoteParticipant) -> None:
            self.joined(participant.identity)
            if self.there:
                on_up()

        @room.on("participant_disconnected")
        def _went(participant: rtc.RemoteParticipant) -> None:
            on_purpose = participant.disconnect_reason == rtc.DisconnectReason.CLIENT_INITIATED
            self.went(participant.identity, on_purpose=on_purpose)
            if not self.there:
                on_down()

        @room.on("reconnecting")
        def _down() -> None:
            self.down()
            on_down()

        @room.on("reconnected")
        def _up() -> None:
            self.up()
            if self.there:
                on_up()

        @room.on("disconnected")
        def _ended(reason: object = None) -> None:
            self.ended(removed=reason == rtc.DisconnectReason.PARTICIPANT_REMOVED)
            on_down()
