"""The API, rehearsed: a real HTTP server on this machine that answers, refuses, bills and breaks like the paid one.

server       start, stop, one request, its answer   profile     how a simulator behaves
validation   served models; a body to an `Ask`, or its 400
rules        rate limits, chance of faults, waits   faults      what goes wrong, and error answers
responses    bodies of 200, tokens, the bill        scenes      a prompt to scenes, things and moods
pictures     an `Ask` to encoded images             assets/     scenes, rooms, things and the index of their words
"""
