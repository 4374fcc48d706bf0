"""Speed and memory, compared pair by pair within one run; no test, and nothing here fails a build.

answers     bodies of a given size, each holding a structurally valid PNG
server      a server with TLS on this machine that is not the bottleneck
contenders  five ways to take images from it; each runs in a child process of its own
child       one child: start it, wait for it, what it used
bucket      the goal case into a bucket beside the same into a folder
versus      the contenders beside each other, at several sizes and numbers in flight
lateness    how late the event loop is while they work
bookkeeping tiny answers: the ledger, and the engine alone
startup     how long until something happens
memory      how much is resident when a lot is in flight, and with a million tasks
growth      cost of an image against how many and how large, as a picture
figures     one figure beside its goal
"""
