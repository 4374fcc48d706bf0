"""Verbs, flags, exit codes. It parses, calls `compose`, prints; it decides nothing.

main        the door: verbs are imported when they are called
endings     whatever a command ends with -> an exit code and a sentence
interrupts  Ctrl-C while nobody listens, and the last step out
pages       help pages, drawn by click alone
flags       the flags that verbs share, and their conversion
"""
