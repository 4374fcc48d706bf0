"""The contact sheet: one static page of every task, and its tables.

sheet     rows of the report, as CSV and JSON lines, and as the data and the HTML of the page (page/)
folder    whose folder a report is, its static page, thumbnails, and the picks saved in it
"""
