"""Calls for minutes while everything about them changes, and what became of each: ``make load``.

No part of the package. What is played and what is judged is in docs/load.md.

    mix          whose calls, with which numbers, and what is to become of them at first
    timeline     what is to become of them later: what changed when, and how long that may take to arrive
    hosts        an originating and a terminating host, their Redis, agents and Kamailios
    callers      SIPp on both sides, and what it wrote down
    events       what happens meanwhile: changes of the policy, of the key, ends of agents
    watch        memory of every process, and of the pool that those of a Kamailio share
    observed     all that was seen of a run
    judge        what of it must not be; limits and growth are parts of it
    run          one run from its beginning to its end
    report       the same as text and as JSON
    plots        and as pictures
"""
