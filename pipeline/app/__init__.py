"""The use cases, one module for each verb, and what they share. The only place that has every adapter.

context       manifest and flags to one checked set-up
locking       the lock first, then the open store
planning      manifest, ledger and files to a plan
consent       may this much be spent
free_changes  what a plan finds that costs no request
signals       Ctrl-C and TERM to the engine's two orders
sending       client, sender, throttle and engine around a spool of due tasks
notify        webhook, ping and metrics file of a run
pilot         a few tasks first, and what the rest will cost by what those did
summary       the last word of a run, and its exit code
run           lock, recover, plan, consent, send, summary
orphans       tasks that the manifest no longer has; a renamed manifest
renames       which task made the image that a task with a new id asks for
holds         until when the provider asked to wait, and for which key and model
provider_checks   is the address reached, which models does it list
retry, redo   tasks made due again; rejected images made anew, marks read
judge, judge_server   the contact sheet served on this machine, to mark images
deliver       recipes of `deliver:`, each a mirror of picked images
training_set  done images and what is known of them, in shards
settle        what the provider's support said of unknown requests
plan, status, report, cost, explain, export, verify, rebuild, rejected, doctor   as the verbs of the command line
"""
