"""Twin of children/sfu_keys.py"""

from __future__ import annotations

import base64
import json

import yaml
from talktime_operator.children.sfu_keys import SfuKeys, build_aggregate, build_sfu_keys
from talktime_operator.names import Key, Owner

KEYS = SfuKeys("APIabc", "s3-_cret", "pw")


def test_the_key_file_is_what_livekit_reads(pool_key: Key, pool_owner: Owner) -> None:
    data = build_sfu_keys(pool_key, pool_owner, KEYS)["stringData"]
    assert yaml.safe_load(data["keys.yaml"]) == {"APIabc": "s3-_cret"}
    assert (data["api-key"], data["api-secret"], data["redis-password"]) == ("APIabc", "s3-_cret", "pw")


def test_the_aggregate_has_one_file_per_pool() -> None:
    manifest = build_aggregate("talktime", {Key("talktime", "eu"): KEYS, Key("talktime", "us"): KEYS})
    assert sorted(manifest["data"]) == ["talktime.eu.json", "talktime.us.json"]
    value = json.loads(base64.b64decode(manifest["data"]["talktime.eu.json"]))
    assert value == {"apiKey": "APIabc", "apiSecret": "s3-_cret"}
