"""YAML to tasks: what images should exist, checked and counted before anything is sent.

In data-flow order:
  loading     a path -> Manifest, or every problem of the file at once
   reading     bytes and UTF-8 text of regular files only
   document    YAML text -> tree, bounded; every scalar as it was written
   resolution  ... and its value by YAML 1.2
   whereabouts where images and ledger lie, from the checked keys or from a glance
   scalars     kinds of value: text, number, duration, dollars
   kinds       values of one key each: names, ratios, sizes, axes, prices
   mapping     what all mappings have in common
   limits, job, schema   the keys, their descriptions, the JSON Schema
   problems, places      what is wrong -> file:line:column, with advice
   interpolate ${ENV} in vars
   budget, sandbox, template   Jinja2 with walls, and a quick path around it
   recipe      item > job > defaults > built-in, compiled
   matrix, jobs          combinations; plans of jobs and their order
   settle      the settings other rooms use
  expansion   Manifest -> Tasks, lazily
   sources     rows: written in place, tables, folder + glob, other jobs
   tasks       one row -> Tasks: rendered, named, fingerprinted
   inputs, outputs, naming, fingerprint, claims   what tasks read, write, are and share
  example     manifests to start from
"""

from typing import TYPE_CHECKING

from pipeline.doors import door

if TYPE_CHECKING:
    from pipeline.manifest.example import write_example
    from pipeline.manifest.expansion import Expansion, expand
    from pipeline.manifest.inputs import InputDigests, read_digest
    from pipeline.manifest.loading import Manifest, load
    from pipeline.manifest.schema import json_schema
    from pipeline.manifest.sources import Upstream, UpstreamImage

__all__ = [
    "Expansion",
    "InputDigests",
    "Manifest",
    "Upstream",
    "UpstreamImage",
    "expand",
    "json_schema",
    "load",
    "read_digest",
    "write_example",
]

__getattr__ = door(
    __name__,
    {
        "example": "write_example",
        "expansion": "Expansion expand",
        "inputs": "InputDigests read_digest",
        "loading": "Manifest load",
        "schema": "json_schema",
        "sources": "Upstream UpstreamImage",
    },
)
