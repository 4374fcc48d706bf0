"""Tasks and ledger become what is due, why, and for how much. Nothing is sent, nothing is written.

selection   which tasks a person means: --select, --exclude, --first, --sample
presence    what lies in the output directory
decide      one task beside what is known of it: due or not, and the reason
plan        all of them: counts, prices, duplicates, and the spool of due tasks
pilot       a few due tasks that stand for all
"""
