"""Bytes of a source: ranges, decompression, encodings, and bookmarks to resume at."""
