"""Custom nodes that travel in the model artifact: see prestartup_script.py. Has no nodes of its own."""

NODE_CLASS_MAPPINGS = {}
