"""Songs: what a song is, where songs come from, the table that holds them. Needs numpy and pyarrow."""
