"""The Lightning adapters: everything that knows of a Trainer."""
