"""What must last: the ledger and the images.

files           every file operation of the store; a file against its record
tree            directories that never lead outside; the disk reserve
lock            one spender per state directory
ledger_file     the ledger as an SQLite file: checked, created, migrated; statements by name, errors translated
ledger          its one writer thread, with group commit
rows            tasks, attempts, artifacts and runs to rows and back
reader          read-only access to the ledger
marks           picked, rejected, stars and notes, in a file beside the ledger
rejected        bodies that were paid for and have no final name; what workers kept elsewhere, collected
writer          an image in memory to a file under its final name; earlier images moved aside
bucket_writer   the same in a bucket: images as objects of S3, Google Cloud Storage or Azure
images          the images of a sender stored, or a failure that says where their bytes were kept
resources       everything a store is made of, opened and checked in order
store           records the attempts, images and money of a run
maintenance     moves, accepted changes and salvaged bodies, between requests
parts           part files left by a process that died
recovery        repairs at the start of a run
mirror          the files of a delivery, in a folder or in a bucket
integrity       files compared with the ledger
ledger_salvage  rows of a damaged ledger that can still be read
rebuild         a ledger made from images and what is left of the old one
"""
