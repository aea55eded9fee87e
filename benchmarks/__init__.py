"""Side-by-side performance measurements, run by hand or by `make bench`; each prints a table, then a JSON object."""
