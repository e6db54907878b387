"""A server with something to see: the samples of five vendors' APIs, and a worker that is never done."""
