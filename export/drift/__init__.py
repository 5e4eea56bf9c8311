"""Whether songs have drifted from those that a bundle was made for."""
