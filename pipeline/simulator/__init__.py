"""The API, rehearsed: a real HTTP server on this machine that answers, refuses, bills and breaks like the paid one.

server            start, address, stop                api               one request, from its key to its bill
profile           how a simulator behaves             limits            rate limits of one key
models            the models it serves                fields, validation    a body to an `Ask`, or its 400
faults, chance    what goes wrong, and when           rendering         an `Ask` to encoded images
pictures          a prompt to a picture               scenes, relight   what it shows; image to image
responses         bodies of 200                       error_responses   bodies of errors
usage             tokens of an answer, and their price
transport         how an answer is sent               billing           a line for every answer
assets/           scenes, rooms, things and the index of their words
"""
