"""Many attempts: the control plane. It sees tasks, money and outcomes, never an image's bytes.

events     what happens during a run, as values
wallet     budgets: reserved before an attempt, settled after it
throttle   when the next request may start: canary, limits, backoff; and the gate that workers wait at
limit_search   the search for what the server allows: requests in flight, starts a second
backoff    a time in which nothing is started but one probe at a time, and which refusals begin one
starts     which requests were taken, how long answers take, and a rate that was given
retry      may a task be asked again, and when
halt       when a run must start nothing more, and its exit code
attempt    one attempt: begin, send, record; the protocols of sender, ledger and prices
run        a bounded queue, workers, repeats, halts
"""
