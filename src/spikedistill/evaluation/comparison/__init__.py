"""Comparison of several runs: the record of each run, and tables of their differences with intervals."""
