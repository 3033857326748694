"""Which weights move: networks with named stages, slices of them, freezing, and the cache of the frozen part."""
