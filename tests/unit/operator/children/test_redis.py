"""Twin of children/redis.py"""

from __future__ import annotations

from talktime_operator.children.redis import build_redis_deployment, build_redis_service
from talktime_operator.names import Key, Owner


def test_a_killed_one_finds_its_rooms_again_and_wants_a_password(pool_key: Key, pool_owner: Owner) -> None:
    manifest = build_redis_deployment(pool_key, pool_owner, "redis:7", "IfNotPresent")
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    assert container["args"][:6] == ["--dir", "/data", "--save", "", "--appendonly", "yes"]
    assert container["volumeMounts"] == [{"name": "data", "mountPath": "/data"}]
    assert container["args"][-2:] == ["--requirepass", "$(REDIS_PASSWORD)"]
    assert container["env"][0]["valueFrom"]["secretKeyRef"] == {"name": "sfu-eu-keys", "key": "redis-password"}
    assert manifest["spec"]["strategy"] == {"type": "Recreate"}
    service = build_redis_service(pool_key, pool_owner)
    assert service["spec"]["selector"] == manifest["spec"]["template"]["metadata"]["labels"]
