"""Downloads inside the process, where there is no agent and the calls of the switch are threads.

Only the adapter of such a switch imports this, and hands it to `switch.process.load`; a Kamailio
process loads neither this module nor an HTTP client.
"""

from __future__ import annotations

from shaken_plugin.config.sections import Settings
from shaken_plugin.ports import CertificateFetcher, CertificateSource


def download_inline(settings: Settings) -> tuple[CertificateSource, CertificateFetcher]:
    """A `runtime.Inline`: called only where settings know no agent, and only then is an HTTP client loaded.

    Not before the process has forked for the last time. A reload gets the same again, with all that was
    downloaded, unless the rules of downloads have changed.
    """
    from shaken_plugin.runtime.downloads import inline_fetcher, kept  # noqa: PLC0415  # see above

    return kept, inline_fetcher(settings)
