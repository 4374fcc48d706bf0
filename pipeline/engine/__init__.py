"""Many attempts: the control plane. It sees tasks, money and outcomes, never an image's bytes.

events     what happens during a run, as values
ports      protocols of what the engine needs: sender, ledger, disk
wallet     budgets: reserved before an attempt, settled after it
throttle   when the next request may start
retry      whether and when a task is asked again
halt       when a run starts nothing more, and its exit code
attempt    one attempt: begin, send, record
run        a bounded queue, workers, repeats, halts
"""
