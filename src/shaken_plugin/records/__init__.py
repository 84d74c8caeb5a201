"""Records of calls: written by switch processes, moved into the ledger by the agent, searched by people.

call       the record of one signing or verification, and its line
schema     the JSON Schema of that
spool      what a switch process writes lines with; imports no library
lines      reading lines again, whoever wrote them
tables     the ledger's tables
engines    the databases that it can lie in
pieces     writing to its tables what was read of the spool
ledger     the ledger: SQLite or PostgreSQL
search     questions to it
following  reading on in it, for whoever must see every record once; place: where that was
collector  moves lines into it, each exactly once
"""
