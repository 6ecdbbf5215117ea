"""What every part may use: errors aside, closing, units, descriptors, sockets, and the loop of a server."""
