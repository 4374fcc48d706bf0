"""The contact sheet: one static page of every task, and its tables.

folder    where a report is, whether that folder is ours, and the picks saved in it
tables    rows of the report, and the same as CSV and JSON lines
sheet     rows to the data and the HTML of the page (page/)
gallery   the static page: thumbnails, links, tables, money over time
"""
