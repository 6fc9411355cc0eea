"""Groups for other applications, under a name of their own: ``lr_callbacks/callbacks``."""
