"""How customers behave: their offences, the warnings about them, and who is suspended, for people and the agent.

state      the state file, opened to be changed
calls      records of calls as calls that count
accounts   rows of it as accounts of `core.offences`, and back
book       what calls do to accounts, and the messages that follow
decisions  what people decide: delivered, dismiss, suspend, terminate, reinstate
view       what the file says, for people and messages
message    what a message says, and its signature
"""
