"""Python client of Tidings: the generated stubs are in `tidings.v1`."""
