"""Adds /opt/ml/model/custom_nodes to where ComfyUI looks for custom nodes, if the model artifact has it.

Not a line of extra_model_paths.yaml, because ComfyUI does not start when a directory of custom nodes that it was told of
is missing, and on the read-only disk of the models it cannot be made. ComfyUI runs this file before it imports any
custom node, and has its list of such files by then; so theirs are run here.
"""

import logging
import runpy
from pathlib import Path

import folder_paths

CUSTOM_NODES = Path("/opt/ml/model/custom_nodes")

if CUSTOM_NODES.is_dir():
    folder_paths.add_model_folder_path("custom_nodes", str(CUSTOM_NODES))
    for script in sorted(CUSTOM_NODES.glob("*/prestartup_script.py")):
        if script.parent.suffix == ".disabled":
            continue
        try:
            runpy.run_path(str(script), run_name=script.stem)
        except Exception:
            # As with ComfyUI's own: a node that cannot start does not keep the others from it.
            logging.exception("%s failed", script)
