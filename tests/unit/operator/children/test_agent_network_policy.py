"""Twin of children/agent_network_policy.py"""

from __future__ import annotations

from talktime_operator.children.agent_network_policy import build_agent_network_policy
from talktime_operator.names import Key, Owner


def test_only_the_operator_reaches_the_worker_port(key: Key, owner: Owner) -> None:
    spec = build_agent_network_policy(key, owner, "talktime")["spec"]
    worker, metrics = spec["ingress"]
    assert worker["ports"] == [{"protocol": "TCP", "port": 8081}]
    (peer,) = worker["from"]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "talktime"}
    assert peer["podSelector"]["matchLabels"] == {"app.kubernetes.io/component": "operator"}
    assert metrics == {"ports": [{"protocol": "TCP", "port": 8082}]}
    assert spec["policyTypes"] == ["Ingress"]
