"""Everything that reads or writes the bytes of an image.

formats      type detection, PNG, JPEG and WebP containers, check for completeness
metadata     removes EXIF, XMP and comments before an image is sent
provenance   a record of how an image was made, embedded as XMP and read back
convert      other formats and sizes converted to what the API takes, in a limited child process
thumbnails   small pictures for the contact sheet
"""
