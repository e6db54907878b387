"""The HTTP/JSON face: an ordinary client of the gRPC port, and on top of it one file per vendor dialect."""
