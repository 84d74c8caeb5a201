"""Compact JSON for lines."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from shaken_plugin.jsontext import flat

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.from_regex(r"[a-z_0-9]{1,20}", fullmatch=True), _VALUES))
def test_an_object_is_written_as_the_encoder_writes_it(fields: dict[str, object]) -> None:
    assert flat(fields) == json.dumps(fields, separators=(",", ":"))
