"""What a terminal or a log shows, one module for each verb that needs one. Nothing here reads ledger or files.

console    the console; sentences, lines and tables on it
logs       log records of a run, as text or JSON lines
progress   the progress of a run, redrawn in place on a terminal or as lines
run        the summary of a run
plan       a plan and its price
explain    the origin of one image
status     tasks by state and money of a manifest, the history of one task; spend by group
"""
