"""The command line, one module per panel of `headrace --help`: arguments, help texts, and the call of what works."""
