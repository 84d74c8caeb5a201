"""The agent: one daemon per host that downloads for all SIP workers, which never do.

It answers misses on a Unix socket, keeps certificates, trust lists and revocation lists fresh
ahead of time in the file of `certs.cache`, and serves metrics and health on loopback.

``downloads``, ``wiring``  what is needed of whoever speaks HTTP, and connecting a fetcher to it
``documents``, ``index``, ``schedule``  certificate documents: single flight, bounds, backoff,
                       refreshing ahead of time, what is forgotten
``lists``, ``trusted``, ``trust``  trust lists and revocation lists: checked before they are kept
``recorder``           writing to the shared file, and going on when that fails
``alarms``, ``metrics``, ``web``, ``clock``  what an operator must see
``server``             the Unix socket
``daemon``, ``parts``  all of it put together, from start to SIGTERM; what it is given
"""
