"""The gRPC services: short handlers that say what a call means in terms of the store and the watches."""
