"""The agent with its real parts: what it is allowed by the settings the fetcher must not turn away."""

from __future__ import annotations

from shaken_plugin.config.sections import AgentSettings, Settings, SigningSettings, VerificationSettings
from shaken_plugin.runtime.downloads import fetch_rules


def test_the_fetcher_takes_as_many_downloads_as_the_settings_allow() -> None:
    settings = Settings(
        signing=SigningSettings(mode="off"),
        verification=VerificationSettings(),
        agent=AgentSettings(max_fetches=1000, max_per_host=900, ca_bundle="/tls.pem"),
    )
    rules = fetch_rules(settings)
    assert (rules.concurrency, rules.concurrency_per_host) == (1000, 900)
    assert rules.outstanding > 1000
    assert rules.outstanding_per_host > 900
    assert str(rules.ca_bundle) == "/tls.pem"
