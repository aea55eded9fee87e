"""What runs inside the box: the standard library only, mounted there read-only.

Each box starts an interpreter anew, so these modules do without what is slow to import, such as pathlib.
"""
