"""The contact sheet: one static page of every task, and its tables.

folder    where a report is, and whether that folder is ours
tables    rows of the report, and the same as CSV and JSON lines
picks     picked and rejected images, read from a saved file and merged
sheet     rows to the data and the HTML of the page (page/)
gallery   the static page: thumbnails, links, tables, money over time
"""
