"""YAML, tables and folders become a lazy stream of tasks, checked and counted before anything is sent.

files         plain files, read within limits
yaml          YAML text to a tree of dict, list and text with positions; YAML 1.2 scalars
fields        types of values: general ones (number, duration, dollars) and those of one key
keys          base model of every mapping; the keys of provider, limits, retry and notify
schema        the keys of a job and of the whole manifest, and their JSON Schema
settings      checked keys to the settings that other packages use; recipes of `deliver:`
problems      validation errors with line and column
location      output and state directory, found without loading the whole manifest
loader        a path to a checked `Manifest`, or every problem of the file
templates     Jinja2 templates, compiled once, with errors that name a line
sandbox       what a template may do, and its render budget
jobs          the layers of keys, merged into one recipe a job; the order of chained jobs
matrix        the combinations of a job's axes
spreadsheets  the records of CSV and TSV files and of workbooks (extra `excel`)
tables        CSV, TSV, JSON lines, Parquet and workbooks, row by row
globbing      patterns, and the files of a folder or objects of a bucket that match
inputs        input images, files or objects: size, time and digest
sources       the rows of a job: items, a table, files, another job's images
outputs       output names: made portable, checked against what is on disk
tasks         one row and combination to tasks: rendered, named, fingerprinted
expand        a manifest to its tasks; duplicate ids and names are errors
examples      commented manifests for `init`
reference     jobs/README.md, written from the models
"""
