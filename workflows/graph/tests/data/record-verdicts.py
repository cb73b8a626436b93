#!/usr/bin/env python3
"""Asks a running ComfyUI which broken workflows it refuses, and writes verdicts.json beside this script.

    core-classes.py prepare DIR      (and start ComfyUI as it says)
    record-verdicts.py --url http://127.0.0.1:8188

Every input of every base workflow is left out, and set to each of VALUES, one at a time. A verdict is one letter for
each of these: `.` taken, `x` refused. Node 1 of a base is what links in VALUES lead to; `@` is the node itself.
"""

import argparse
import copy
import json
import pathlib
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
SHIPPED = HERE.parent.parent.parent
BASES = ["wide.json", "workflow_api.json", "flux1-dev-fp8.json", "sdxl-image-to-image.json"]
VALUES = [
    0, -1, 1, 2.5, 1000000, -1e300, 9007199254740993, 18446744073709551615, 18446744073709551616,
    "64", " 6_4 ", "1e3", "abc", "", "euler", "default", "pixel_space", True, False, None,
    {}, {"a": 1}, {"__value__": 3}, {"__value__": ["x"]},
    [], ["1"], ["1", 0], ["1", 1], ["1", 2], ["1", 9], ["1", 0, 0], ["77", 0], ["@", 0], [1, 0],
]


def base(name):
    path = HERE / name if (HERE / name).exists() else SHIPPED / name
    workflow = json.loads(path.read_text())
    for node in workflow.values():
        if "ckpt_name" in node["inputs"]:
            node["inputs"]["ckpt_name"] = "comfy-deploy-marker-checkpoints.safetensors"
        if node["class_type"] == "LoadImage":
            node["inputs"]["image"] = "comfy-deploy-marker-input.a.png"
    return workflow


def post(url, path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
            return json.loads(text) if text else {}
    except urllib.error.HTTPError as error:
        with error:
            return {"error": error.code} if error.code == 400 else {"crash": error.code}


def refused(url, workflow):
    answer = post(url, "/prompt", {"prompt": workflow})
    if "crash" in answer:
        raise SystemExit(f"ComfyUI answered {answer['crash']}")
    # What it takes shall not run.
    if "prompt_id" in answer:
        post(url, "/queue", {"clear": True})
        post(url, "/interrupt", {})
    return bool(answer.get("error") or answer.get("node_errors"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    url = parser.parse_args().url.rstrip("/")
    verdicts = {}
    for name in BASES:
        workflow = base(name)
        assert not refused(url, workflow), f"{name} itself is refused"
        verdicts[name] = {}
        for node in workflow:
            for key in workflow[node]["inputs"]:
                changed = copy.deepcopy(workflow)
                del changed[node]["inputs"][key]
                line = ["x" if refused(url, changed) else "."]
                for value in VALUES:
                    if isinstance(value, list):
                        value = [node if part == "@" else part for part in value]
                    changed[node]["inputs"][key] = value
                    line.append("x" if refused(url, changed) else ".")
                verdicts[name][f"{node}.{key}"] = "".join(line)
    lines = ["{", f'"values":{json.dumps(VALUES)},', '"verdicts":{']
    bases = []
    for name, inputs in verdicts.items():
        bases.append(f'"{name}":{{\n' + ",\n".join(f"{json.dumps(k)}:{json.dumps(v)}" for k, v in inputs.items()) + "\n}")
    (HERE / "verdicts.json").write_text("\n".join(lines) + "\n" + ",\n".join(bases) + "\n}\n}\n")


if __name__ == "__main__":
    main()
