"""The gate: what the next response can cost at most, and whether it may start. In process, no network (law 2)."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ZERO
from talktime_ledger.core.rates import RateSnapshot
from talktime_ledger.core.worst_case import (
    TURN_AUDIO_SECONDS,
    Caps,
    Legs,
    instruction_tokens_bound,
    transcription_bound,
)
from talktime_ledger.core.worst_cases import WorstCases, worst_cases
from talktime_ledger.wire import Attachment, RateSnapshotWire, SessionConfig

from talktime_agent.facts import HEARD_STEP_SECONDS

# What the user will probably say before the next answer; asked for ahead so that a commit does not wait for the ledger.
EXPECTED_TURN_SECONDS = 15.0


def session_instructions(config: SessionConfig) -> str:
    """What the provider is told once per session: the Project's instructions, and the language.

    The few tokens of the language are within the allowance for framing that every text's bound has, so that the agent's
    W is the ledger's to the last digit.
    """
    return f"{config.instructions}\n\nSpeak {config.language}."


@dataclass(frozen=True, slots=True)
class Bounds:
    """Worst cases of one session, by the rules of its model's vendor. All amounts in USD.

    ``hold``: worst cases to hold at once, 2 where the provider answers by itself. ``answer_tokens``: cap of one answer.
    """

    legs: Legs
    caps: Caps
    instruction_tokens: int
    closing: str
    hold: int = 1
    answer_tokens: int = 0

    @classmethod
    def of(cls, attachment: Attachment) -> Bounds:
        """From what the ledger told at attach. LookupError when it sent no rates."""
        config = attachment.config
        snapshots = [_snapshot(rate) for rate in attachment.rates]
        if not snapshots:
            raise LookupError("the ledger sent no rates")
        transcription = next((rate for rate in snapshots[1:] if rate.model == config.transcriptionModel), None)
        return cls(
            legs=Legs(snapshots[0], transcription),
            caps=Caps(config.caps.contextTokens, config.caps.responseSeconds),
            instruction_tokens=instruction_tokens_bound(
                config.instructions, (config.greeting or "", config.resume, config.wrapUp, config.closing)
            ),
            closing=config.closing,
            hold=max(1, attachment.grant.hold),
            answer_tokens=config.caps.outputTokens,
        )

    @property
    def rules(self) -> WorstCases:
        """How this vendor's responses are bounded."""
        return worst_cases(self.legs.model.vendor)

    @property
    def longest_response_sec(self) -> float:
        """Longest spoken answer, seconds."""
        return float(self.caps.response_seconds)

    def response(self, context_tokens: int, pending_seconds: float) -> Decimal:
        """W of the response that would start now.

        Transcription is not in it: committed audio holds its own bound. But one more turn's transcription is kept back,
        for it is billed as soon as the user has spoken, answered or not.
        """
        talk = self.rules.response(
            Legs(self.legs.model),
            self.caps,
            instruction_tokens=self.instruction_tokens,
            context_tokens=context_tokens,
            pending_audio_seconds=pending_seconds,
        )
        return talk + self.transcription(TURN_AUDIO_SECONDS)

    def ahead(self, context_tokens: int, pending_seconds: float) -> Decimal:
        """What must be free before anything that may cost starts: W. Where the provider answers by itself: W of the
        answer that may be on its way, and of the one after it, whose context has grown by that.
        """
        if self.hold == 1:
            return self.response(context_tokens, pending_seconds)
        seconds = pending_seconds + HEARD_STEP_SECONDS
        return sum((self.unheard_of(n, context_tokens, seconds) for n in range(self.hold)), ZERO)

    def unheard_of(self, n: int, context_tokens: int, pending_seconds: float) -> Decimal:
        """W of an answer nothing is known of yet, with ``n`` others of that kind before it."""
        return self.response(context_tokens + n * self.answer_tokens, pending_seconds)

    def wanted(self, context_tokens: int, pending_seconds: float) -> Decimal:
        """What to ask the ledger for: W of the response after the user's next turn; the mean where two are held."""
        return self.ahead(context_tokens, pending_seconds + EXPECTED_TURN_SECONDS) / self.hold

    def transcription(self, seconds: float) -> Decimal:
        """Bound of transcribing this much audio."""
        return transcription_bound(seconds, self.legs.transcription)

    @property
    def goodbye(self) -> Decimal:
        """C."""
        return self.rules.goodbye(self.legs.model, self.closing)

    @property
    def goodbye_output_tokens(self) -> int:
        """max_output_tokens of rendering the goodbye."""
        return self.rules.closing_output(self.closing)

    def rates_of(self, model: str) -> RateSnapshot:
        """The snapshot a usage of this model is priced with."""
        transcription = self.legs.transcription
        if transcription is not None and transcription.model == model:
            return transcription
        return self.legs.model


def _snapshot(rate: RateSnapshotWire) -> RateSnapshot:
    prices: dict[Meter, Decimal] = dict(rate.prices)
    return RateSnapshot(rate.card, rate.vendor, rate.model, rate.effective_from, prices, rate.source)
