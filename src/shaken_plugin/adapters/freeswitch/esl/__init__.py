"""The FreeSWITCH functions beside the switch: its application ``socket`` connects to the agent for each leg.

    wire           the protocol: commands go, messages come
    text           channel variables on their way over an event socket, both ways
    conversation   one leg: its variables are read, and what is to be done to it is done
    ends           which legs hold slots, and the channel that tells of their ends
    server         listens, bounds, carries out the functions on threads, takes new settings

Only the agent loads this, and only where ``agent.esl.listen`` is set.
"""
