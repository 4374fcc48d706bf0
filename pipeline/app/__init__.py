"""The use cases: what each verb of the command line does. The only package that imports every adapter.

Shared by several verbs:

context       manifest and flags to checked settings, directories and names
locking       the state lock, and the open store under it; its settings
planning      manifest, ledger and files to rows and a plan; input digests
orphans       tasks that the manifest no longer has, renamed tasks, a renamed manifest file
consent       budgets, consent above $5, and holds: what may be sent now

A run, in the order of its steps:

run           `run`: lock, recovery, plan, consent, sending, summary; signals
stages        the plan of each stage, changes that cost no request, `--pilot`
sending       client, sender, throttle and engine around the due tasks
workers       `--ray`: starts workers on a cluster, and checks that each can send
run_in_thread a run inside another program, for `pipeline.api`: a thread and an event loop of its own
summary       counts and money of a run, and its exit code
notify        webhook, ping and metrics file

The other verbs:

plan          `plan`, `validate`
status        `status` and the history of one task
redo          `retry` and `redo`; the marks that say what was rejected or picked
report        `report`, `cost`
judge, judge_server   `judge`: the contact sheet served on this machine, to mark images
explain       `explain`
export        `export --picked`, `export --as`: picked images, or a training set
deliver       `export RECIPE`: a mirror of picked images as a recipe of `deliver:` says
maintenance   `verify`, `rebuild`, `rejected`, `settle`, `prune`
doctor        `doctor`: this machine, and the provider without a paid request
"""
