"""A trained model as a file that runs without PyTorch: ONNX, OpenVINO, int8."""
