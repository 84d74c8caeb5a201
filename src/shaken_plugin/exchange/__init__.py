"""Policies in and out of a store: as YAML, as CSV, compared.

plain        records as a policy file writes them
yamlfiles    a whole policy as a policy file, and such a file merged into a store
columns      the columns of the CSV files, and cells that a spreadsheet does not run
csvwriting   numbers of rights, or of the do-not-originate list, as CSV
csvreading   the rows of such a file, however a spreadsheet saved it
rows         what the rows mean: the records they are about, and what is wrong with them
importing    rows into a store, all or nothing or the good ones
comparing    what differs between two policies, record by record, number by number

Nothing here holds more than a batch of numbers in memory, but for a policy file that is read.
"""
