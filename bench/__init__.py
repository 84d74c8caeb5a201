"""What calls cost, beside what others cost that do the same: ``make bench``, ``make bench-quick``.

No part of the package. What is measured, and how to repeat it, is in docs/benchmarks.md.

    ratios         medians, percentiles, slopes, and ratios, with their confidence intervals
    search         the highest rate that holds
    results        what a section found, and its form as JSON
    processes      one core; CPU time and memory of processes
    workers        each subject in a process of its own, which the rounds take in turns
    machine        what it ran on
    peers          OpenSSL, libsecsipid
    stage, stores  a provider, its switch, and its calls; policies of up to ten million numbers
    configurations, servers, fleet, proxies   Kamailios to be compared
    phones         a caller and a called party who measure how long calls are under way
    sections       what is measured
    table, plots, page   what people see of it
"""
