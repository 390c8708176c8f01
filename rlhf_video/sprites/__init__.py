"""The built-in world: a procedural video domain whose truth can be read back from pixels."""
