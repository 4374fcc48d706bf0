"""One attempt over the wire: a task becomes a paid request, its answer comes back judged.

catalogue    what models can do, what they cost, until when they are offered (catalogue.yaml)
pricing      what an attempt is reserved at, and what an answer cost
credentials  the key and the address it may be sent to
inputs       input images, read once, proven unchanged, made fit to send
request      a task to the JSON of its request
byte_budget  how many bytes of bodies may be in memory at once
transport    one exchange: connection, time and size limits, errors of the network by name
connections  connections kept for the next request, and what may come on one
body_reader  a large body, read from the socket into the memory it stays in
decoding     the bytes of an answer to a tree of JSON, without copying images
error_words  what the names and words of an error say of an account or a refusal
errors       what an error of the server means, and the delay it names
responses    a whole answer to an image, or the reason why there is none
redact       no key and no control characters in anything shown or kept
client       all of it, as a sender uses it
"""
