"""The Tidings server: gRPC services over events kept in MongoDB."""
