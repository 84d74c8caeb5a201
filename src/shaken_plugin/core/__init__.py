"""The STIR/SHAKEN protocol as values and pure functions.

Sans-IO: nothing in here opens a socket or a file, reads the clock, draws a random number
or writes a log line. Time arrives as an argument, POSIX seconds as ``float`` or ``int``.
"""
