"""The peers: one module a server, each set up as its own documentation recommends."""
