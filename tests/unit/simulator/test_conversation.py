"""Items, their order and their weight; the session object and its refusals."""

from __future__ import annotations

import pytest
from talktime_simulator.conversation import Conversation, item_of, spoken_user_item
from talktime_simulator.journal import Journal
from talktime_simulator.prompt import Truncation
from talktime_simulator.settings import InvalidRequestError, SessionSettings
from talktime_simulator.tokens import Tokens


def message(item_id: str, role: str = "user", text: str = "hello you") -> dict[str, object]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"id": item_id, "type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def test_items_go_where_they_are_asked_to_go() -> None:
    conversation = Conversation()
    assert conversation.insert(item_of(message("b"), "b")) is None
    assert conversation.insert(item_of(message("c"), "c"), "b") == "b"
    assert conversation.insert(item_of(message("a"), "a"), "root") is None
    assert [item.id for item in conversation.items] == ["a", "b", "c"]


def test_a_known_id_and_an_unknown_predecessor_are_refused() -> None:
    conversation = Conversation()
    conversation.insert(item_of(message("a"), "a"))
    with pytest.raises(InvalidRequestError) as twice:
        conversation.insert(item_of(message("a"), "a"))
    assert twice.value.code == "item_create_duplicate_item_id"
    with pytest.raises(InvalidRequestError):
        conversation.insert(item_of(message("b"), "b"), "nowhere")


def test_what_was_truncated_away_does_not_come_back() -> None:
    conversation = Conversation()
    policy = Truncation(limit=100, ratio=0.5)
    for number in range(5):
        conversation.insert(spoken_user_item(f"u{number}", 3000))
    assert [part.id for part in conversation.prompt("", "", policy).parts] == ["u4"]
    conversation.insert(spoken_user_item("u5", 3000))
    assert [part.id for part in conversation.prompt("", "", policy).parts] == ["u4", "u5"]


def test_spoken_items_weigh_their_audio() -> None:
    assert spoken_user_item("u", 2310).tokens == Tokens(audio=24)


def test_truncating_what_is_no_answer_or_too_long_is_an_error() -> None:
    conversation = Conversation()
    conversation.insert(spoken_user_item("u", 3000))
    with pytest.raises(InvalidRequestError):
        conversation.truncate("u", 100)


def test_session_update_keeps_what_it_does_not_name() -> None:
    settings = SessionSettings("sess_1", "gpt-realtime")
    settings.update({"instructions": "be kind", "audio": {"input": {"transcription": {"model": "whisper-1"}}}})
    settings.update({"max_output_tokens": 50, "model": "another"})
    assert settings.instructions == "be kind"
    assert settings.transcription == {"model": "whisper-1"}
    assert settings.output_cap == 50
    assert settings.wire["model"] == "gpt-realtime"
    assert settings.turn_detection is not None
    settings.update({"audio": {"input": {"turn_detection": None}}})
    assert settings.turn_detection is None


@pytest.mark.parametrize(
    "patch",
    [
        {"max_output_tokens": 0},
        {"truncation": {"type": "retention_ratio", "retention_ratio": 2}},
        {"audio": {"input": {"turn_detection": {"type": "telepathy"}}}},
        {"audio": {"output": {"format": {"type": "audio/pcmu"}}}},
    ],
)
def test_a_refused_update_changes_nothing(patch: dict[str, object]) -> None:
    settings = SessionSettings("sess_1", "gpt-realtime")
    before = settings.wire
    with pytest.raises(InvalidRequestError):
        settings.update({"instructions": "changed", **patch})
    assert settings.wire == before


def test_a_journal_survives_a_restart_and_half_a_line(tmp_path: object) -> None:
    from pathlib import Path

    directory = Path(str(tmp_path)) / "state"
    Journal("truth", directory).append({"n": 1})
    with (directory / "truth.jsonl").open("a") as file:
        file.write('{"n": 2')
    assert Journal("truth", directory).records() == [{"n": 1}]
