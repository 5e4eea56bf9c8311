"""Answering: the cascade in Python, in batch and over HTTP. Needs ONNX Runtime, never torch."""
