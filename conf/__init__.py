"""The configuration groups, shipped as the package ``lr_callbacks.conf``."""
