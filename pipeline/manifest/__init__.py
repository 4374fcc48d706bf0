"""YAML, tables and folders become a lazy stream of tasks, checked and counted before anything is sent.

yaml          YAML text to a tree of dict, list and text; YAML 1.2 scalars
problems      what is wrong with a value, with its line and column in the manifest
location      paths and addresses, plain files read within limits; output and state directory without a whole load
fields        types of values: general ones (number, duration, dollars) and those of one key
settings      base model of every mapping; the keys of provider, limits, retry and notify, and what they become
schema        the keys of a job, a delivery and the whole manifest; they check a tree, and say what is wrong with it
loader        a path to a checked `Manifest`, or every problem of the file
templates     Jinja2 templates, compiled once, with errors that name a line
sandbox       what a template may do, and its render budget
jobs          the layers of keys, merged into one recipe a job; its matrix; the order of chained jobs
spreadsheets  the records of CSV and TSV files and of workbooks (extra `excel`)
tables        CSV, TSV, JSON lines, Parquet and workbooks, row by row
globbing      patterns, and the files of a folder or objects of a bucket that match
sources       the rows of a job: items, a table, files, another job's images
inputs        the input images that rows name, files or objects, and their digests
outputs       output names: made portable, checked against what is on disk; recipes of `deliver:`
tasks         one row and combination to tasks: rendered, named, fingerprinted
expand        `Expansion`: the tasks of a manifest; duplicate ids and names are errors
reference     jobs/README.md and the JSON Schema, from the models; the commented manifests of `init`
"""
