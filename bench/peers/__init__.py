"""The same cascade behind other servers, asked by the same load generator in one run."""
