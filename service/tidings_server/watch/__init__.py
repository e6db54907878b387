"""Watching: the hub that every change passes through, and the streams that tell of them. No gRPC, no MongoDB."""
