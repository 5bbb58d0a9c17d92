"""The frame of a local page: the link that lets people in, the SQLite file, static files, limits of requests.

`site.Site` is the base of a page, `store_file.StoreFile` of what it keeps, and `listening.listen` serves it.
"""
