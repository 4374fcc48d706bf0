"""What must last: the ledger and the images.

files           the one seam to the file system; directories that never lead outside
sqlite          statements by name, time and errors as the ledger has them (schema.sql, queries.sql)
lock            one spender per state directory
ledger_file     the ledger as a file: checked before it is touched, created, migrated
ledger          its one writer thread, with group commit
rows            tasks, attempts and artifacts to rows and back
history         what the ledger tells of the past
reader          the ledger for everybody who only looks
disk_reserve    space given up on a full disk so that paid images can be saved
marks           what a person said of images, in a file beside the ledger
rejected        bodies that were paid for and hold no usable image
writer          an image in memory to a file under its final name; earlier images moved aside
buckets         one prefix of a bucket: the one module that imports obstore
images/         where a sender puts images: `stored`, `bucket`
resources       everything a store is made of, opened and checked in order
store           what a run records
maintenance     moves, accepted changes and salvaged bodies, between requests
parts           images that a dead process left behind
recovery        what a start finds, brought to order
integrity       files compared with the ledger
ledger_salvage  what can still be read of a damaged ledger
rebuild         a ledger made from images and what is left of the old one
"""
