"""What a terminal or a log shows, one module for each verb that needs one. Nothing here looks anything up.

logs       log records of a run, as text or JSON lines
progress   the counts of a run, and progress as lines
live       progress drawn in place on a terminal; which of the two a run shows
run        the summary of a run
plan       a plan as a bill
status     where a manifest stands; one task's history
cost       what was spent
explain    where one image comes from
"""
