"""Code that runs inside the box, where it is mounted read-only; it uses the standard library only.

Each box starts a new interpreter, so these modules avoid slow imports such as pathlib.
"""
