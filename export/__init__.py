"""From trained networks to a bundle: ONNX, parity, calibration. Needs torch and onnx."""
