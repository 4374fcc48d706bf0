"""Everything that reads or writes the bytes of an image.

formats      sniff a type, walk PNG, JPEG and WebP containers, decide whether an image is whole
metadata     what a camera wrote, taken out before an image is sent
provenance   a record of how an image was made, embedded as XMP and read back
convert      other kinds and sizes made into what the API takes, in a limited child process
thumbnails   small pictures for the contact sheet
checks       what may be wrong with an image that came, by its header and its pixels
rendition    an image in another kind, size and colour space
"""
