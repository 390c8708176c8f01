"""One readable file per method: configuration, loss and training loop."""
