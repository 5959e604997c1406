"""One module per foreign library. Each is imported only when its target is used."""
