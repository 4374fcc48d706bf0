"""Where images are kept. An answer is kept in one way (`stored`); an image gets its name in two.

stored   answers of a sender: an artifact, or a failure that says where the bytes were kept
bucket   images as objects of S3, Google Cloud Storage or Azure

How they become files of a folder is in `store.writer`. Both are a `store.resources.Place`.
"""
