"""STIR/SHAKEN caller-ID authentication for the open-source switches people already run.

The package decides the attestation level of a call from records, signs the PASSporT and
verifies the ones it receives. What it never does: download anything in a SIP process of
Kamailio, hand a private key around, or drop a call because of a fault
of its own unless the policy says so.

Layers, each importing only from those above it in this list:

``errors``, ``patience``, ``processid``  exceptions, and the failure codes with their SIP answers; how long a call waits
                   for locks; which process this is
``bounded``, ``jsontext``, ``sqlitefile``  a mapping that forgets what was not used lately; compact JSON for
                   lines that are written once a call; opening shared files
``core``           the protocol, sans-IO: no sockets, files, clock, random numbers or logging
``ports``          what the services need from outside, as Protocols
``authentication`` the authentication service of RFC 8224 section 6.1
``verification``   the verification service of RFC 8224 section 6.2
``stores``, ``certs``, ``records``, ``telemetry``  implementations of the ports
``conduct``        offences of customers, warnings, and who is suspended
``lint``           what is wrong with a certificate, its chain and its repository
``fetch``          downloads that trust nobody; for the agent, the command, and a FreeSWITCH without an agent
``config``         settings and policy files, checked and with positions
``runtime``        settings put together into services, once per process
``exchange``       policies in and out of a store: policy files, CSV, what differs
``switch``, ``agent``  what the switch adapters share: guard, modes, actions; the daemon that downloads
``adapters``, ``cli``, ``lab``, ``probe``, ``setup``, ``switchcheck``  glue for the switches, the ``shaken``
                   command, the test lab, the probe of other switches, installation, what is wrong with
                   a switch's configuration
"""

__version__ = "0.1.0"
