"""The contact sheet: one static page of every task, and its tables.

tables    rows of the report, and the same as CSV and JSON lines
sheet     rows to the data and the HTML of the page (page/)
folder    whose folder a report is, its static page, thumbnails, money over time, and the picks saved in it
"""
