"""The API, rehearsed: a real HTTP server on this machine that answers, refuses, bills and breaks like the paid one.

server            start, address, stop                api               one request, from its key to its answer
profile           how a simulator behaves             limits            rate limits of one key
models            the models it serves                validation        a body to an `Ask`, or its 400
faults, chance    what goes wrong, and when           rendering         an `Ask` to encoded images
scenes, pictures  a prompt to a picture               billing           tokens, prices, a line for every answer
responses         bodies of 200                       error_responses   bodies of errors
assets/           scenes, rooms, things and the index of their words
"""
