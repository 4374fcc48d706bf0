"""Tasks and ledger become what is due, why, and for how much. Nothing is sent, nothing is written.

selection   --select, --exclude, --first, --sample, --pilot
decide      one task, its ledger row and its file: due or not, and the reason
plan        all of them: counts, prices, duplicates, and the spool of due tasks
"""
