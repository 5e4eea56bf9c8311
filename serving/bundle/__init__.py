"""The bundle: what training and export produce, and nothing of it unverified."""
