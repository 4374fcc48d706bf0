"""Verbs, flags, help, exit codes. A command parses, calls `app`, prints.

main         finds the verb, turns every ending into an exit code
flags        the flags that verbs share; help pages
terminal     streams, signals and encoding as the parent process set them up; results printed as JSON
author       init, validate, schema, simulate
inspect      plan, status, report, judge, cost, explain, export
run          run, retry, redo; progress, logs and summary of a run
maintenance  verify, rebuild, rejected, settle, prune, doctor
"""
