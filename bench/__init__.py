"""What calls cost, beside what others cost that do the same: ``make bench``, ``make bench-quick``.

No part of the package. What is measured, and how to repeat it, is in docs/benchmarks.md.

    ratios       medians, and ratios with their confidence intervals
    results      what a section found, and its form as JSON
    processes    one core; CPU time and memory of processes
    workers      each subject in a process of its own, which the rounds take in turns
    machine      what it ran on
    stage        a provider, its switch, and its calls
    peers        OpenSSL, libsecsipid
    table, plots what people see of it
    sections     what is measured
"""
