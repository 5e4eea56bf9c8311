"""Sources of songs: one module a source, told apart by content, converted to the song table."""
