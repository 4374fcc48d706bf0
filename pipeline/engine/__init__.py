"""Many attempts: the control plane. It sees tasks, money and outcomes, never an image's bytes.

events     what happens during a run, as values
ports      what the engine needs of its neighbours, as protocols
wallet     budgets: reserved before an attempt, settled after it
throttle   when the next request may start
retry      may a task be asked again, and when
halt       when a run must start nothing more, and its exit code
attempt    one attempt: begin, send, record
run        a bounded queue, workers, repeats, halts
"""
