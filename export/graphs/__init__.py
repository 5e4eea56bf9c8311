"""Networks as ONNX graphs, batch normalisation and standardisation folded in."""
