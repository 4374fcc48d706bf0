"""Everything that reads or writes the bytes of an image.

formats      type detection, PNG, JPEG and WebP containers, check for completeness
metadata     private metadata removed; a record of how an image was made, embedded as XMP and read back
decoder      a limited child process: every picture that others made is decoded there
convert      an image in another format, size and colour space
thumbnails   small pictures for the contact sheet
checks       what may be wrong with a received image, by its header and its pixels
"""
