"""Twin of children/disruption_budget.py"""

from __future__ import annotations

from talktime_operator import names
from talktime_operator.children.disruption_budget import build_disruption_budget, build_sfu_disruption_budget
from talktime_operator.names import Key, Owner


def test_one_at_a_time(key: Key, owner: Owner) -> None:
    labels = names.agent_labels("study")
    spec = build_disruption_budget(Key("team", "talktime-agent-study"), owner, labels)["spec"]
    assert spec == {"maxUnavailable": 1, "selector": {"matchLabels": labels}}


def test_an_sfu_node_is_held_until_it_is_labelled_as_drained(pool_key: Key, pool_owner: Owner) -> None:
    spec = build_sfu_disruption_budget(pool_key, pool_owner)["spec"]
    assert spec["maxUnavailable"] == 0
    assert spec["selector"]["matchLabels"]["talktime.dev/pool"] == "eu"
    assert spec["selector"]["matchExpressions"] == [{"key": "talktime.dev/drained", "operator": "DoesNotExist"}]
