"""Building blocks: checks, sequences and masks, pooling, heads, convolutions."""
