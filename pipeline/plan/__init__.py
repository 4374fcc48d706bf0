"""Tasks and ledger become what is due, why, and for how much. Nothing is sent, nothing is written.

selection   --select, --exclude, --first, --sample, --pilot
presence    the files of the output directory, compared with the ledger
decide      one task and its ledger row: due or not, and the reason
plan        all of them: counts, prices, duplicates, and the spool of due tasks
"""
