"""The API, rehearsed: a real HTTP server on this machine that answers, refuses, bills and breaks like the paid one.

server            started, addressed, stopped         api               one request, from its key to its bill
profile           how a simulator behaves             limits            rate limits of one key
models            what is served                      fields, validation    a body -> an `Ask`, or its 400
faults, chance    what goes wrong, and when           rendering         an `Ask` -> encoded images
pictures          a prompt -> a picture               scenes, relight   what it shows; image to image
responses         bodies of 200                       error_responses   errors as they really look
usage             tokens of an answer, and their price
transport         how an answer travels               billing           a line for every answer
assets/           scenes, rooms, things and the index of their words
"""
