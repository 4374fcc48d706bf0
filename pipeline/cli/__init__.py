"""Verbs, flags, exit codes. It parses, calls `compose`, prints; it decides nothing.

main     the door: verbs are imported when they are called, errors become exit codes
flags    the flags that verbs share, and their conversion
"""
