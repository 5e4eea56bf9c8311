"""Networks: recurrences, convolutions, dense networks and ensembles of them."""
