"""The composition root: settings put together into services.

check    read and check everything, report every problem, build the services
apply    check, then put settings and policy in force in the local store
start    what a switch does before it forks: check, apply if the files changed
reload   what a worker does later: take the settings from the store, no YAML
build    the services of settings that were read already
inline   (a module) downloads inside the process, for a switch whose calls are threads
"""

from shaken_plugin.runtime.checking import Checked, check, digests
from shaken_plugin.runtime.force import apply, first_state, reload, start
from shaken_plugin.runtime.services import (
    Inline,
    Services,
    attestation_policy,
    build,
    build_verifier,
    local_store,
    settings_plan,
    verification_rules,
)

__all__ = [
    "Checked",
    "Inline",
    "Services",
    "apply",
    "attestation_policy",
    "build",
    "build_verifier",
    "check",
    "digests",
    "first_state",
    "local_store",
    "reload",
    "settings_plan",
    "start",
    "verification_rules",
]
