"""Numbers from CSV into a fleet's policy, the way ``shaken import`` does it; a million in ``make test-large``."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.core.records import Right
from shaken_plugin.exchange.csvreading import Rows
from shaken_plugin.exchange.importing import Import
from shaken_plugin.stores.staging import Staging
from tests.stores.redis.conftest import ACME, ALICE, NewHost

RATE = 1_000_000 / 60
"""Numbers a second: a million must take no more than a minute."""
STEP = 7_919  # a prime: the numbers come in no order


@pytest.mark.alone
def test_a_hundred_thousand_numbers_are_imported_in_a_tenth_of_a_minute(host: NewHost, tmp_path: Path) -> None:
    check_import(host, tmp_path, 100_000)


def check_import(host: NewHost, folder: Path, numbers: int) -> None:
    """Import so many numbers, fast enough, and look whether each host has them."""
    here, there = host("here"), host("there")
    here.put(ACME)
    there.replica.catch_up()
    source = folder / "numbers.csv"
    with source.open("w") as file:
        file.write("number,customer,basis,document,use_case,valid_until\r\n")
        for index in range(numbers):
            number = 12_150_000_000 + index * STEP % numbers * 3
            file.write(f"+{number},acme,letter,LOA-{index % 1000},reminders,2027-06-30\r\n")
    began = time.monotonic()
    with source.open("rb") as stream, Staging() as staging:
        rows = Rows(stream, source.name, None, None)
        job = Import(
            rows,
            dial_plan("US"),
            staging,
            partial=False,
            update=False,
            reject=lambda *_: None,
            progress=lambda *_: None,
        )
        job.read(here.policy)
        assert not job.kept_out
        with here.policy.change(ALICE, "import") as draft:
            job.write(draft)
    seconds = time.monotonic() - began
    assert (job.outcome.new_numbers, job.outcome.new_records) == (numbers, 1000)
    assert here.log.head().version == 2
    there.replica.catch_up()
    for one in (here, there):
        with one.policy.records() as records:
            assert sum(records.count(Right, right.id) for right in records.all(Right)) == numbers
    assert len(there.rights("12150000003")) == 1
    assert numbers / seconds > RATE, seconds
