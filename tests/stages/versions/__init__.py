"""The content that each stage makes of fixed inputs, held beside the stage's version in `versions.json`.

- `text`: documents; `inputs`: artifacts of them, and a network with fixed weights
- `cases`: the configs that each stage is run with
- `contents`: what is held of an artifact's files
- `fixture`: the recorded contents, and their comparison with the present ones
"""
