"""The policy of a fleet: Redis holds a log of its changes and a snapshot, every host a replica of it.

For the agent, the command and tests; no switch process loads this, for none talks to Redis. What a switch reads is
the replica, the same local SQLite file as without a fleet.
"""
