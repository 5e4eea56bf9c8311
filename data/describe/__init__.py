"""A page about songs, before anything is made from them."""
