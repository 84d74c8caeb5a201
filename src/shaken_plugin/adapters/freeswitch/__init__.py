"""The FreeSWITCH adapter: sign, verify, pass through; in the switch or beside it.

    leg          one leg of a call as the adapter sees it: its variables, and what is to be done to it
    headers      Identity headers as channel variables, so that each leaves once, in order, unharmed
    reading      a leg as a `CallMessage`
    functions    verify, sign, pass_through: a leg in, commands out; nothing here knows how they get there
    mod_python   the same inside FreeSWITCH, by mod_python3 (kept: its script, workers: its threads, others: other legs)
    esl          the same in the agent, over an event socket
    dump         all variables of a leg at once, as the agent asks for them

A B2BUA makes a new INVITE for each leg that leaves. So a call is verified on the leg that comes,
and signed on each leg that leaves, just before its INVITE: FreeSWITCH then runs what stands in the
variables ``execute_on_originate…`` of that leg, or of all (global ones). That is once for every
route that is tried, for calls that were originated, transferred or forwarded, too.
"""
