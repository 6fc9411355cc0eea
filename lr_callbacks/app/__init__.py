"""The bundled application: what `lr-train` composes, builds and says."""
