"""The use cases, one module for each verb, and what they share. The only package that imports every adapter.

context       manifest and flags to checked settings, directories and names
early_lock    the state lock, taken before the manifest is checked
locking       the state lock, then the open store
planning      manifest, ledger and files to a plan
consent       the price of a plan against budgets, and the question whether to spend it
free_changes  renames and accepted changes: what a plan finds that costs no request
signals       INT, TERM and HUP to the two stop orders of the engine
sending       client, sender, throttle and engine around a spool of due tasks
workers       what the workers of a cluster are told, and how each proves that it can send
notify        webhook, ping and metrics file of a run
pilot         a few tasks first, and what the rest will cost by what those did
summary       counts and money of a run, and its exit code
run           lock, recovery, plan, consent, sending, summary
orphans       tasks that the manifest no longer has, renamed tasks, a renamed manifest file
holds         delays named by the provider, by key and model
provider_checks   connection test and the provider's list of models
retry, redo   tasks made due again; rejected images bought anew
judge, judge_server   the contact sheet served on this machine, to mark images
deliver       recipes of `deliver:`, each a mirror of picked images
training_set  done images and their fields, in shards
prune         what takes room and is no longer needed, shown and removed
settle        unknown requests recorded as billed or free
plan, status, report, explain, export, verify, rebuild, rejected, doctor   as the verbs of the command line
"""
