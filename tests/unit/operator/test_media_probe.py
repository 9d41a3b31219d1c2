"""ICE checks and the SDP around them; what was seen of media paths."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import socket
import struct
from collections.abc import Collection

import pytest
from talktime_operator import stun
from talktime_operator.media_checks import Offered, checking
from talktime_operator.media_probe import MediaProbe, accept
from talktime_operator.media_watch import INTERVAL, MediaWatch, Pace
from talktime_operator.pools.health import Answer, judge_media
from talktime_operator.sfu_probe import LiveKitAt, Reply

# RFC 5769 section 2.2.
RESPONSE = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
TRANSACTION, PASSWORD = bytes.fromhex("b7e7a701bc34d686fa87dfae"), "VOkJxbRl1RmTxUk/WvJxBt"
OFFER = """v=0
o=- 1 1 IN IP4 0.0.0.0
a=ice-lite
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
a=mid:0
a=ice-ufrag:abcd
a=ice-pwd:secret
a=candidate:1 1 udp 2130706431 10.0.0.1 7882 typ host ufrag abcd
a=candidate:1 2 udp 2130706431 10.0.0.1 7882 typ host ufrag abcd
a=candidate:2 1 tcp 1671430143 10.0.0.1 7881 typ host tcptype passive
m=audio 9 UDP/TLS/RTP/SAVPF 111
a=mid:1
""".replace("\n", "\r\n")


def test_the_rfcs_own_answer_is_taken() -> None:
    assert stun.answers(RESPONSE, TRANSACTION, PASSWORD)


@pytest.mark.parametrize(
    ("datagram", "transaction", "password"),
    [
        (RESPONSE, TRANSACTION, "another"),
        (RESPONSE, bytes(12), PASSWORD),
        (RESPONSE[:-1], TRANSACTION, PASSWORD),
        (b"\x01\x11" + RESPONSE[2:], TRANSACTION, PASSWORD),
        (RESPONSE[:30] + b"X" + RESPONSE[31:], TRANSACTION, PASSWORD),
        (b"\x01\x01\x00\x00" + RESPONSE[4:20], TRANSACTION, PASSWORD),
        (b"", TRANSACTION, PASSWORD),
    ],
    ids=["password", "transaction", "cut", "error 487", "changed", "unsigned", "empty"],
)
def test_what_is_not_its_answer_is_none(datagram: bytes, transaction: bytes, password: str) -> None:
    assert not stun.answers(datagram, transaction, password)


def test_a_check_holds_name_and_role() -> None:
    made = stun.binding(TRANSACTION, "evtj:h6vY", PASSWORD, stun.CONTROLLED)
    assert made[:2] == b"\x00\x01"
    assert made[8:20] == TRANSACTION
    assert b"evtj:h6vY" in made
    assert (b"\x80\x29\x00\x08" in made, b"\x80\x2a\x00\x08" in made) == (True, False)
    assert int.from_bytes(made[2:4], "big") == len(made) - 20


class Node(asyncio.DatagramProtocol):
    """Answers the checks of these numbers, counted from 0."""

    def __init__(self, answered: Collection[int]) -> None:
        self._answered = answered
        self._waiting: list[tuple[bytes, tuple[str, int]]] = []
        self.asked = 0
        self.transport: asyncio.DatagramTransport | None = None

    def wake(self) -> None:
        self._answered = range(1000)
        for data, addr in self._waiting:
            self.answer(data, addr)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked += 1
        if self.asked - 1 in self._answered:
            self.answer(data, addr)
        else:
            self._waiting.append((data, addr))

    def answer(self, data: bytes, addr: tuple[str, int]) -> None:
        if self.transport is not None:
            head = struct.pack("!HHI", stun.SUCCESS, 24, stun.COOKIE) + data[8:20]
            signature = hmac.new(PASSWORD.encode(), head, hashlib.sha1).digest()
            self.transport.sendto(head + struct.pack("!HH", stun.INTEGRITY, 20) + signature, addr)


@pytest.mark.parametrize(
    ("answered", "comes_through", "asked"),
    [
        (range(100), True, 3),
        ((), False, 3),
        (range(2, 100), True, 3),
        ((0, *range(2, 100)), True, 3),
        ((0,), False, 4),
        ((0, 1), False, 5),
    ],
    ids=["always", "never", "late", "one lost", "lost after the first", "lost at the end, which is waited for"],
)
async def test_a_look_watches_the_path_and_three_lost_checks_in_a_row_are_a_loss(
    answered: Collection[int], comes_through: bool, asked: int
) -> None:
    loop = asyncio.get_running_loop()
    transport, node = await loop.create_datagram_endpoint(lambda: Node(answered), local_addr=("127.0.0.1", 0))
    node.transport = transport
    try:
        where = transport.get_extra_info("sockname")
        # A clock of the checks: however slow the machine is, each takes 0.1 s.
        async with checking(Offered("abcd", PASSWORD, ()), "own", where, lambda: node.asked / 10) as checks:
            took = await checks.watch(0.3, 0.3)
    finally:
        transport.close()
    assert (took is None, node.asked >= asked) == (not comes_through, True), node.asked


@pytest.mark.parametrize(("wakes_after", "late"), [(0.0, True), (0.05, True), (10.0, False)])
async def test_a_node_that_slept_answers_the_checks_that_waited_for_it(wakes_after: float, late: bool) -> None:
    """A frozen process finds its datagrams when it goes on."""
    loop, own = asyncio.get_running_loop(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    own.bind(("127.0.0.1", 0))
    async with checking(Offered("abcd", PASSWORD, ()), "own", own.getsockname()) as checks:
        assert await checks.watch(0.3, 0.3) is None
        transport, node = await loop.create_datagram_endpoint(lambda: Node(()), sock=own)
        node.transport = transport
        loop.call_later(wakes_after, node.wake)
        if wakes_after == 0.0:
            await asyncio.sleep(0.05)
        assert await checks.late() is late
    transport.close()


async def test_who_cannot_send_has_seen_nothing() -> None:
    with pytest.raises(OSError, match="no socket"):
        async with checking(Offered("abcd", PASSWORD, ()), "own", ("not an address", 1)):
            pass


def test_an_offer_is_read() -> None:
    assert Offered.parse(OFFER) == Offered("abcd", "secret", (("10.0.0.1", 7882),), lite=True)
    assert Offered.parse(OFFER.replace("ice-pwd", "x")) is None


def test_only_the_data_channel_is_taken() -> None:
    answer = accept(OFFER, "mine", "my-password", "AA:BB").splitlines()
    assert [line for line in answer if line.startswith("m=")] == [
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        "m=audio 0 UDP/TLS/RTP/SAVPF 111",
    ]
    assert "a=group:BUNDLE 0" in answer
    assert answer.count("a=ice-ufrag:mine") == 2


@pytest.mark.parametrize(
    ("nodes", "proven", "verdict", "after"),
    [
        ({}, True, "unknown", True),
        ({"a": Answer.GOOD}, False, "good", True),
        ({"a": Answer.GOOD, "b": Answer.NO_MEDIA}, False, "bad", True),
        ({"a": Answer.NO_MEDIA}, True, "bad", True),
        # It never came through: that may be our own way out.
        ({"a": Answer.NO_MEDIA}, False, "unknown", False),
    ],
)
def test_udp_that_never_came_through_is_held_against_nobody(
    nodes: dict[str, Answer], proven: bool, verdict: str, after: bool
) -> None:
    made = judge_media(nodes, proven)
    assert (made.verdict, made.proven) == (verdict, after)
    assert bool(made.message) == (verdict != "good")


class Scripted(MediaProbe):
    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)

    async def look(
        self, at: LiveKitAt, node_id: str, media: tuple[str, int], within: float, hold: float = 0.0
    ) -> Reply:
        return Reply(self.answers.pop(0), 0.01)


AT = LiveKitAt("http://n", "key", "secret")


async def test_good_paths_are_looked_at_now_and_then_and_bad_ones_always() -> None:
    probe = Scripted(Answer.GOOD, Answer.NO_MEDIA, Answer.NO_MEDIA, Answer.SILENT, Answer.SILENT, Answer.GOOD)
    watch, left = MediaWatch(probe), []
    for now in (0.0, 1.0, INTERVAL, INTERVAL + 1, INTERVAL + 2, 60.0, 61.0, 62.0):
        await watch.look("uid", AT, "ND", ("n", 7882), Pace(INTERVAL, 20.0), now)
        left.append((len(probe.answers), watch.lost("uid")))
    # No join says nothing: what was seen stays, until it is stale, and adds nothing.
    assert left == [(5, None), (5, None), (4, 1), (3, 1), (2, 0), (1, None), (0, None), (0, None)]
    assert watch.judge([("uid", "a")], False).verdict == "good"
    watch.forget(but=set())
    assert watch.judge([("uid", "a")], True).verdict == "unknown"


@pytest.mark.parametrize(
    ("more", "saw_it"),
    [
        ((Answer.NO_MEDIA, Answer.NO_MEDIA), 3),
        ((Answer.NO_MEDIA, Answer.SILENT), 2),
        ((Answer.SILENT, Answer.SILENT), 1),
        ((Answer.NO_MEDIA, Answer.GOOD), None),
    ],
)
async def test_a_path_that_was_good_is_looked_at_until_its_loss_is_certain(
    more: tuple[Answer, ...], saw_it: int | None
) -> None:
    async def at_once(_: float) -> None:
        return

    probe = Scripted(Answer.GOOD, Answer.NO_MEDIA, *more, Answer.NO_MEDIA)
    watch, pace = MediaWatch(probe, at_once), Pace(INTERVAL, 20.0, threshold=3)
    for now in (0.0, INTERVAL):
        await watch.look("uid", AT, "ND", ("n", 7882), pace, now)
    assert (watch.lost("uid"), len(probe.answers)) == (saw_it, 1)
    if saw_it is not None:
        await watch.look("uid", AT, "ND", ("n", 7882), pace, INTERVAL + 1)
        assert watch.lost("uid") == 1, "of a path that is known to be lost one look a round is enough"
