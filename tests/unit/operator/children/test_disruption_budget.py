"""Twin of children/disruption_budget.py"""

from __future__ import annotations

from talktime_operator import names
from talktime_operator.children.disruption_budget import build_disruption_budget
from talktime_operator.names import Key, Owner


def test_one_at_a_time(key: Key, owner: Owner) -> None:
    labels = names.agent_labels("study")
    spec = build_disruption_budget(Key("team", "talktime-agent-study"), owner, labels)["spec"]
    assert spec == {"maxUnavailable": 1, "selector": {"matchLabels": labels}}
