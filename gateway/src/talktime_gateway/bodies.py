"""What clients may send. Everything LiveKit's token endpoint allows but the gateway assigns is refused by name."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from .problems import Problem

MAX_BODY_BYTES = 16_384
MAX_TICKET_SEC = 30 * 24 * 3600

ParticipantName = Annotated[str, StringConstraints(max_length=128)]
ParticipantKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:@-]{1,128}$")]
SessionId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


class Body(BaseModel):
    """Base: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TokenRequest(Body):
    """LiveKit's standard token request, as far as a client may decide it."""

    room_name: SessionId | None = Field(None, description="Only to ask again for a running session, or to observe.")
    participant_name: ParticipantName | None = Field(None, description="Shown to others in the room.")
    participant_key: ParticipantKey | None = Field(None, description="Stable id for the participant's own limit.")
    previous_token: Annotated[str, StringConstraints(max_length=8192)] | None = None


class TicketRequest(Body):
    """A single-use invitation."""

    expires_in_sec: int = Field(ge=1, le=MAX_TICKET_SEC)
    participant_key: ParticipantKey | None = None


B = TypeVar("B", bound=Body)


async def bounded(request: Request) -> bytes:
    """The raw body, read no further than it may be long. Raises Problem 400."""
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_BODY_BYTES:
            raise Problem(400, "BodyTooLarge", f"the body is longer than {MAX_BODY_BYTES} bytes")
    return raw


def read(kind: type[B], raw: bytes) -> B:
    """The body as ``kind``; an empty one is ``{}`` and a null is a field not sent, as some LiveKit clients do.

    Raises Problem 400 whose ``field`` and detail name the first field at fault.
    """
    try:
        data: Any = json.loads(raw) if raw.strip() else {}
    except (ValueError, RecursionError) as error:
        raise Problem(400, "BodyNotJSON", "the body is not JSON") from error
    if not isinstance(data, dict):
        raise Problem(400, "BodyNotJSON", "the body must be a JSON object")
    try:
        return kind.model_validate({name: value for name, value in data.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0])[:64]
        text = "is not accepted: it is assigned here" if first["type"] == "extra_forbidden" else first["msg"]
        raise Problem(400, "FieldRejected", f"field {name!r} {text}", extra={"field": name}) from error


def only_for(allowed: bool, field: str, value: object, who: str) -> None:
    """Raises Problem 400 when a field is sent by somebody it is not for."""
    if value is not None and not allowed:
        raise Problem(400, "FieldRejected", f"field {field!r} is accepted {who}", extra={"field": field})
