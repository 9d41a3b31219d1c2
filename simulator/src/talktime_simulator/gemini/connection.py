"""One Gemini Live client: its setup, context and ears; client messages in, turns of the model out."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
from typing import Any

from aiohttp import WSMsgType, web

from talktime_simulator.connection import World, digest
from talktime_simulator.faults import GEMINI, Fault
from talktime_simulator.interviewer import given_sentence, is_closing, is_wrap_up, reply, transcript_of
from talktime_simulator.journal import timestamp
from talktime_simulator.tokens import Tokens, text_tokens
from talktime_simulator.utterance import Utterance
from talktime_simulator.vad import EnergyVad, SpeechStarted, TurnDetection

from .context import CONTEXT_LIMIT, Context, Resumables
from .generation import Ask, LiveGeneration, LiveOrder
from .setup import INTERNAL, INVALID_ARGUMENT, POLICY, RefusedError, Setup, camel, setup_of, text_of
from .tokens import AUDIO_MS_PER_TOKEN, INPUT_RATE, audio_tokens, searched_tokens, thought_tokens, unassigned_tokens
from .wire import Wire

Message = dict[str, Any]
STANDARD_ALPHABET = str.maketrans("-_", "+/")

log = logging.getLogger(__name__)


class LiveConnection:
    """Serves one WebSocket from its `setup` until it closes."""

    def __init__(self, world: World, resumables: Resumables, wire: Wire, version: str) -> None:
        self._world = world
        self._resumables = resumables
        self._wire = wire
        self._version = version
        self.session_id = world.new_id("live")
        self._context = Context()
        self._vad = EnergyVad(TurnDetection(), INPUT_RATE)
        self._activity_ms: float | None = None
        self._unheard_ms = 0.0
        self._generations = 0
        self._latest: Ask | None = None
        self._latest_task: asyncio.Task[None] | None = None
        self._extra = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, socket: web.WebSocketResponse) -> None:
        """Reads until the client is gone; open turns are then billed as undelivered."""
        try:
            setup: Setup | None = None
            async for message in socket:
                if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    continue
                given = camel(json.loads(message.data))
                if setup is None:
                    setup = await self._begin(given)
                else:
                    await self._receive(given, setup)
        except RefusedError as refusal:
            await self._wire.close(refusal.code, refusal.reason)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("message not understood: %s %s", type(error).__name__, error)
            await self._wire.close(INVALID_ARGUMENT, "Request contains an invalid argument.")
        finally:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._note("session.closed")

    async def _begin(self, message: Message) -> Setup:
        if "setup" not in message:
            raise RefusedError(INVALID_ARGUMENT, "setup must be the first message and only the first")
        setup = setup_of(message["setup"], self._version)
        if setup.handle:
            known = self._resumables.get(setup.handle)
            if known is None:
                raise RefusedError(POLICY, "BidiGenerateContent session not found")
            self._context = known
        self._vad.settings = setup.automatic or TurnDetection()
        self._note(
            "session.created",
            model=setup.model,
            resumed=setup.handle is not None,
            instructions_digest=digest(setup.instructions),
            max_output_tokens=setup.output_cap,
            automatic=setup.automatic is not None,
            compression=None if setup.compression is None else setup.compression.trigger,
        )
        await self._wire.send(setupComplete={"sessionId": self.session_id})
        self._start(self._live(self._world.connection_seconds))
        return setup

    async def _live(self, seconds: float, notice: float = 60.0) -> None:
        """A connection has its time; the client is told before, and cut when it does not go by itself."""
        notice = min(notice, seconds / 2)
        await asyncio.sleep(seconds - notice)
        self._note("go_away", seconds=notice)
        await self._wire.send(goAway={"timeLeft": f"{notice:g}s"})
        await asyncio.sleep(notice)
        await self._wire.close(INTERNAL, "Deadline expired before operation could complete.")

    def _note(self, event: str, **fields: Any) -> None:
        at = timestamp(self._world.now())
        self._world.log.append({"at": at, "provider_session": self.session_id, "event": event, **fields})

    def _start(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _receive(self, message: Message, setup: Setup) -> None:
        if "realtimeInput" in message:
            self._on_realtime_input(message["realtimeInput"], setup)
        elif "clientContent" in message:
            self._on_client_content(message["clientContent"], setup)
        elif "toolResponse" in message:
            text = json.dumps(message["toolResponse"].get("functionResponses") or [])
            self._context.hear(Tokens(text=text_tokens(text)))
            self._answer(setup)
        else:
            raise RefusedError(INVALID_ARGUMENT, "Request contains an invalid argument.")

    def _on_realtime_input(self, given: Message, setup: Setup) -> None:
        for blob in [*(given.get("mediaChunks") or []), *([given["audio"]] if "audio" in given else [])]:
            self._on_audio(blob, setup)
        if "activityStart" in given:
            self._on_activity_start(setup)
        if "activityEnd" in given:
            self._on_activity_end(setup)
        if given.get("audioStreamEnd") and (stopped := self._vad.finish()) is not None:
            self._spoken(stopped.audio_end_ms - stopped.audio_start_ms, setup)
        if given.get("text"):
            self._interrupt(setup)
            self._context.hear(Tokens(text=text_tokens(given["text"])))
            self._answer(setup)

    def _on_audio(self, blob: Message, setup: Setup) -> None:
        if blob.get("mimeType", "audio/pcm").replace(" ", "") not in ("audio/pcm", f"audio/pcm;rate={INPUT_RATE}"):
            raise RefusedError(INVALID_ARGUMENT, f"only audio/pcm at {INPUT_RATE} Hz is simulated")
        try:
            # Either alphabet, as in every protobuf JSON: Python's client sends the URL-safe one.
            pcm = base64.b64decode(blob["data"].translate(STANDARD_ALPHABET), validate=True)
        except binascii.Error as error:
            raise RefusedError(INVALID_ARGUMENT, "Request contains an invalid argument.") from error
        before = self._vad.position_ms
        events = self._vad.feed(pcm, detect=setup.automatic is not None)
        self._unheard_ms += self._vad.position_ms - before
        for heard in events:
            if isinstance(heard, SpeechStarted):
                self._note("input_audio_buffer.speech_started", audio_start_ms=heard.audio_start_ms)
                self._interrupt(setup)
            else:
                self._spoken(heard.audio_end_ms - heard.audio_start_ms, setup)

    def _on_activity_start(self, setup: Setup) -> None:
        if setup.automatic is not None:
            raise RefusedError(INVALID_ARGUMENT, "Explicit activity control is not supported when automatic detection")
        self._activity_ms = self._vad.position_ms
        self._note("activity.start")
        self._interrupt(setup)

    def _on_activity_end(self, setup: Setup) -> None:
        if setup.automatic is not None:
            raise RefusedError(INVALID_ARGUMENT, "Explicit activity control is not supported when automatic detection")
        if self._activity_ms is None:
            return
        milliseconds = self._vad.position_ms - self._activity_ms
        self._activity_ms = None
        self._note("activity.end", audio_ms=milliseconds)
        self._spoken(milliseconds, setup)

    def _spoken(self, milliseconds: float, setup: Setup) -> None:
        """The user has finished saying something: this is what the model answers by itself."""
        counted = max(milliseconds, self._unheard_ms) if setup.hears_all else milliseconds
        self._unheard_ms = 0.0
        tokens = audio_tokens(counted)
        self._note("input_audio_buffer.committed", audio_ms=counted, tokens=tokens)
        self._context.hear(Tokens(audio=tokens))
        heard = transcript_of(f"{self.session_id}{self._generations}", milliseconds) if milliseconds else ""
        self._answer(setup, heard=heard if setup.input_transcription else "", searched=setup.searches)

    def _interrupt(self, setup: Setup) -> None:
        if setup.interrupts and self._latest is not None:
            self._latest.interrupt()

    def _on_client_content(self, given: Message, setup: Setup) -> None:
        turns = given.get("turns") or []
        written: list[str] = []
        for turn in turns:
            role, text = turn.get("role"), text_of(turn)
            if role not in ("user", "model") and not (role is None and "gemini-3" not in setup.model):
                raise RefusedError(INVALID_ARGUMENT, "Request contains an invalid argument.")
            if role == "model":
                self._context.recall(Tokens(text=text_tokens(text)))
            else:
                self._context.hear(Tokens(text=text_tokens(text)))
            written.append(text)
        self._note("client_content", turns=len(turns), turn_complete=bool(given.get("turnComplete")))
        self._extra = "\n".join([*([self._extra] if self._extra else []), *written])
        if not given.get("turnComplete"):
            return
        if self._latest is not None and self._latest.unspoken and not turns:
            return  # the turn that this completes is being answered already
        if self._latest is not None:
            self._latest.interrupt()  # content interrupts, whatever the handling of activity is
        self._answer(setup)

    def _answer(self, setup: Setup, heard: str = "", searched: bool = False) -> None:
        """Opens the next turn of the model; it begins when the one before has ended and told its usage."""
        if self._latest is not None:
            self._latest.hurry()
        ask = Ask(heard, searched, self._extra)
        self._latest, self._extra = ask, ""
        self._latest_task = self._start(self._turn(setup, ask, self._latest_task))

    async def _turn(self, setup: Setup, ask: Ask, before: asyncio.Task[None] | None) -> None:
        try:
            if before is not None:
                await asyncio.wait([before])
            await self._generate(setup, ask)
        finally:
            ask.ended = True

    async def _generate(self, setup: Setup, ask: Ask) -> None:
        extra = ask.extra
        world = self._world
        self._note(
            "response.create",
            instructions_digest=digest(extra or setup.instructions),
            instructions_extra=extra,
            wrap_up=is_wrap_up(extra),
            closing=is_closing(extra),
            conversation="auto",
        )
        faults = world.faults.take(GEMINI)
        await asyncio.sleep(faults.get(Fault.LATE_CREATED, 0))
        self._generations += 1
        number = self._generations
        prompt = self._context.prompt(setup.head, setup.compression)
        if prompt.total > CONTEXT_LIMIT:
            await self._wire.close(INVALID_ARGUMENT, "Request contains an invalid argument.")
            return
        thoughts = thought_tokens(number) if setup.thinks else 0
        order = LiveOrder(
            number=number,
            model=setup.model,
            prompt=prompt,
            unassigned=unassigned_tokens(number),
            tool_prompt=searched_tokens(number) if ask.searched else 0,
            thoughts=thoughts if setup.output_cap is None else min(thoughts, setup.output_cap // 4),
            cap=setup.output_cap,
            heard=ask.heard,
            created_at=world.now(),
            faults=faults,
        )
        text = reply(self._context.answers, int(digest(setup.instructions), 16), extra)
        self._note("response.created", response_id=str(number), given=given_sentence(extra) is not None)
        pcm = await world.voice.render(text) if setup.spoken else b""
        generation = LiveGeneration(
            order,
            Utterance(text, pcm, AUDIO_MS_PER_TOKEN, setup.output_transcription),
            self._wire,
            world.pace,
            self.session_id,
            world.truth,
            world.log,
            self._context.answered,
        )
        ask.begin(generation)
        await generation.run()
        await self._after(setup, faults)

    async def _after(self, setup: Setup, faults: dict[Fault, float]) -> None:
        if setup.resumable:
            handle = self._world.new_id("handle")
            self._resumables.keep(handle, self._context.saved())
            await self._wire.send(sessionResumptionUpdate={"newHandle": handle, "resumable": True})
        if Fault.GO_AWAY in faults:
            self._start(self._live(2 * faults[Fault.GO_AWAY], faults[Fault.GO_AWAY]))
