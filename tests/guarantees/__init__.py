"""The guarantees of a watch, checked under faults: what was asked and told is recorded, and held against the store."""
