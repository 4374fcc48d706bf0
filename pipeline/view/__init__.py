"""What a terminal or a log shows, one module for each verb that needs one. Nothing here reads ledger or files.

logs       log records of a run, as text or JSON lines
progress   the counts of a run, and progress as lines
live       progress drawn in place on a terminal; which of the two a run shows
run        the summary of a run
plan       a plan and its price
status     tasks by state and money of a manifest; one task's history
cost       spend by group
explain    the origin of one image
"""
