"""Twin of children/sfu_keys.py"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import yaml
from talktime_operator.children.sfu_keys import SfuKeys, build_aggregate, build_sfu_keys, entries, ring_entry
from talktime_operator.names import Key, Owner
from talktime_operator.pools.rotation import Keys, Pair, Stage, fingerprint

OLD, NEW = Pair("APIabc", "s3-_cret"), Pair("APIxyz", "other-_cret")
SETTLED = Keys(OLD)
MOVING = Keys(NEW, OLD, Stage.MOVING, datetime(2026, 11, 22, tzinfo=UTC))


def test_the_key_file_is_what_livekit_reads(pool_key: Key, pool_owner: Owner) -> None:
    secret = build_sfu_keys(pool_key, pool_owner, SfuKeys(SETTLED, "pw"))["data"]
    data = {name: base64.b64decode(text).decode() for name, text in secret.items()}
    assert yaml.safe_load(data["keys.yaml"]) == {"APIabc": "s3-_cret"}
    assert (data["api-key"], data["api-secret"], data["redis-password"]) == ("APIabc", "s3-_cret", "pw")


def test_a_node_restarted_in_place_finds_the_pairs_it_was_started_with() -> None:
    data = entries(SfuKeys(MOVING))
    for ring in ((OLD,), (NEW,), (OLD, NEW)):
        file = yaml.safe_load(data[ring_entry(fingerprint(ring))])
        assert file == {p.api_key: p.api_secret for p in ring}
    assert data["api-key"] == "APIxyz"


def test_the_secret_remembers_where_the_rotation_stands() -> None:
    assert Keys.parse(entries(SfuKeys(MOVING))["rotation.json"]) == MOVING


def test_the_aggregate_has_one_file_per_pool_with_every_pair_whose_signature_counts() -> None:
    manifest = build_aggregate("talktime", {Key("talktime", "eu"): SETTLED, Key("talktime", "us"): MOVING})
    values = {name: json.loads(base64.b64decode(text)) for name, text in manifest["data"].items()}
    assert values == {
        "talktime.eu.json": {"apiKey": "APIabc", "apiSecret": "s3-_cret"},
        "talktime.us.json": {"apiKey": "APIxyz", "apiSecret": "other-_cret", "also": {"APIabc": "s3-_cret"}},
    }
