"""What model files say about themselves, read from their headers only.

``sources.read_model`` fetches the facts of a model wherever it is; ``catalogue.lookup`` knows the common models
offline; ``codec`` keeps facts in ``lab.lock.yaml``. The parsers themselves do no I/O.
"""
