"""A trained model in use: embed new media, collections and pieces; export to ONNX."""
