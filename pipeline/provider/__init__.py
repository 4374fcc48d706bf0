"""One attempt over the wire: a task becomes a paid request, its answer an image or a failure.

catalogue    abilities, prices and end dates of models (catalogue.yaml); what an attempt costs
credentials  the key and the address it may be sent to
request      a task and its input images to the JSON of its request
byte_budget  limits the bytes of bodies in memory
transport    one exchange: connection, size limit, network errors
response_timeout  time limits of one exchange
connections  connections kept for the next request; large bodies read into one buffer
decoding     the bytes of an answer to a tree of JSON, without copying images
delays       the delay that an answer names
errors       an error answer to a `Failure`, by its names and its words last
responses    a whole answer to an image, or the reason why there is none
redact       removes the key and control characters from anything shown or kept
client       all of it, as a sender uses it
"""
