"""A stand-in for tensorflow_model_server: same flags, same config files, same REST and gRPC answers."""
