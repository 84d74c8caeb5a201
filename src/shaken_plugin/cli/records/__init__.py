"""Records on the command line: one implementation of the verbs, for every kind of record.

values       what an option takes, as click types: the same checks as in the policy file
attributes   the options of a record, made from its dataclass; records as text and as JSON
session      the store opened; who wants a change, and why
changing     a change carried out as one, and printed before → after
kinds        what tells one kind of records from another, and its options
spans        numbers of records
splitting    some numbers of a record changed, and not the others
verbs        add, show, list, set, remove, suspend and reinstate of a kind
history      who changed a record last
levels       what level calls with a number get at a time
checks       what no single option shows
completing   ids from the store, for the shell
"""
