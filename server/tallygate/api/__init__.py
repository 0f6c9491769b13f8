"""The edge: gRPC servicers of few lines, conversions, the error table, the ops listener."""
