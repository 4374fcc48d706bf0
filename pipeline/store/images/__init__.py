"""Where images are kept, one module for each kind of place. All pass the same tests (tests/store/images).

folder   files below the output directory
"""
