"""What docs/offences.md says of settings and of the webhook's body."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from pathlib import Path

import pytest

from shaken_plugin.conduct.message import headers, secret_key
from shaken_plugin.config import yamlfile
from shaken_plugin.config.models import validate
from shaken_plugin.config.sections import Settings
from shaken_plugin.core.offences import Stage
from tests.agent.hook import SECRET
from tests.conduct.book import Bench

TEXT = (Path(__file__).parents[2] / "docs" / "offences.md").read_text("utf-8")


def _block(kind: str) -> str:
    found = re.search(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_settings_are_valid() -> None:
    document = yamlfile.parse(_block("yaml"), "offences.md")
    document.data |= {"signing": {"mode": "off"}, "verification": {"mode": "off"}}
    settings = validate(Settings, document)
    assert settings is not None, document.problems
    assert settings.offences.webhook.url == "https://crm.example.com/hooks/shaken"


def test_the_body_has_the_fields_that_are_shown(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "state.db")
    bench.calls([(0, "13125559900")])
    (message,) = bench.book.due(bench.at(0), 1)
    shown, told = json.loads(_block("json")), json.loads(message.body)
    assert shown.keys() == told.keys()
    assert shown["data"].keys() == told["data"].keys()
    assert shown["data"]["numbers_used"][0].keys() == told["data"]["numbers_used"][0].keys()
    assert shown["data"]["events"][0].keys() <= told["data"]["events"][0].keys()


def test_a_receiver_as_it_is_shown_accepts_a_message(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "state.db")
    bench.calls([(0, "1")])
    (message,) = bench.book.due(bench.at(0), 1)
    sent = headers(message, secret_key(SECRET), 1_795_000_000.9)
    given = {"id": sent["Webhook-Id"], "timestamp": sent["Webhook-Timestamp"], "body": message.body}
    receiver = "def receive(key, id, timestamp, body, signature):\n" + re.sub("(?m)^", "    ", _block("python"))
    space = {"base64": base64, "hmac": hmac, "hashlib": hashlib}
    exec(receiver, space)  # the documentation's own code
    receive = space["receive"]
    for signature, answer in ((sent["Webhook-Signature"], None), ("v1,bm8=", 401), ("v1,bm8= v2,x", 401)):
        assert receive(key=SECRET, signature=signature, **given) == answer  # type: ignore[operator]  # of the document
    assert receive(key=SECRET, signature=sent["Webhook-Signature"], **given | {"id": "x"}) == 401  # type: ignore[operator]  # of the document


@pytest.mark.parametrize("stage", Stage)
def test_every_stage_is_in_the_picture(stage: Stage) -> None:
    assert stage.value in TEXT.partition("## What counts")[0]
