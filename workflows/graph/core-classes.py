#!/usr/bin/env python3
"""Makes core-classes.json and float-inputs.txt from a running ComfyUI without custom nodes.

    core-classes.py prepare DIR
        Makes DIR with a marker file in every folder that ComfyUI looks for files in, so that an input which offers
        that marker is known to name files of that folder. Prints how to start ComfyUI on it.
    core-classes.py write --url http://127.0.0.1:8188 --commit SHA
        Reads /object_info and writes both files beside this script.

What is kept are facts of the format: types, limits, choices. No text that ComfyUI's authors wrote is.
"""

import argparse
import datetime
import json
import pathlib
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
FOLDERS = (
    "audio_encoders checkpoints classifiers clip_vision controlnet diffusion_models embeddings gligen hypernetworks"
    " loras model_patches photomaker style_models text_encoders upscale_models vae vae_approx"
).split()
MARK = "comfy-deploy-marker-"
# VAELoader offers these when both halves are there.
APPROXIMATE = [f"{name}_{half}.safetensors" for name in ("taesd", "taesdxl", "taesd3", "taef1") for half in ("encoder", "decoder")]
# Whatever is offered from the input directory is uploaded or belongs to the author of the workflow.
INPUT_FILES = ["a.png", "a.wav", "a.mp4", "a.latent", "3d/a.glb"]


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def prepare(args):
    base = pathlib.Path(args.dir).resolve()
    paths = ["markers:", f"  base_path: {base}/models"]
    for folder in FOLDERS:
        touch(base / "models" / folder / f"{MARK}{folder}.safetensors")
        paths.append(f"  {folder}: {folder}")
    for name in APPROXIMATE:
        touch(base / "models" / "vae_approx" / name)
    # These two are told by a directory and by another extension.
    touch(base / "models" / "diffusers" / f"{MARK}diffusers" / "model_index.json")
    touch(base / "models" / "configs" / f"{MARK}configs.yaml")
    paths += ["  diffusers: diffusers", "  configs: configs"]
    for name in INPUT_FILES:
        name = pathlib.PurePath(name)
        touch(base / "input" / name.with_name(f"{MARK}input.{name.name}"))
    for name in ("output", "temp", "user"):
        (base / name).mkdir(exist_ok=True)
    (base / "paths.yaml").write_text("\n".join(paths) + "\n")
    print(
        "python main.py --cpu --listen 127.0.0.1 --disable-all-custom-nodes"
        f" --extra-model-paths-config {base}/paths.yaml --input-directory {base}/input --output-directory {base}/output"
        f" --temp-directory {base}/temp --user-directory {base}/user --database-url sqlite:///:memory:"
    )


def get(url, path):
    with urllib.request.urlopen(url.rstrip("/") + path, timeout=60) as answer:
        return json.load(answer)


def limits(kind, options):
    low, high = options.get("min"), options.get("max")
    if low is None and high is None:
        return kind
    return [kind, low, high]


def choice(offered, lists):
    """An input that takes one of some names."""
    marked = {name.split(MARK)[1].split(".")[0] for name in offered if isinstance(name, str) and MARK in name}
    if "input" in marked:
        return "FILE"
    if marked:
        assert len(marked) == 1, marked
        also = [name for name in offered if MARK not in name]
        return {"models": marked.pop(), "also": also} if also else {"models": marked.pop()}
    if not offered or not all(isinstance(name, str) for name in offered):
        # Nothing to compare with: names of files that only exist later, or choices of another kind.
        return "*"
    if offered not in lists:
        lists.append(offered)
    return {"list": lists.index(offered)}


def an_input(spec, lists):
    kind, options = spec[0], (spec[1] if len(spec) > 1 else {})
    if kind == "COMBO" or isinstance(kind, list):
        if options.get("multiselect") or "remote" in options:
            return "*"
        return choice(options.get("options", []) if kind == "COMBO" else kind, lists)
    return limits(kind, options) if kind in ("INT", "FLOAT") else kind


def a_class(info, lists):
    made = {"out": [kind if isinstance(kind, str) else "*" for kind in info["output"]]}
    if info["output_node"]:
        made["save"] = True
    for key, section in (("in", "required"), ("opt", "optional")):
        inputs = {name: an_input(spec, lists) for name, spec in (info["input"].get(section) or {}).items()}
        if inputs:
            made[key] = inputs
    return made


def is_api(info):
    return bool(info.get("api_node")) or info["python_module"].startswith("comfy_api_nodes")


def write(args):
    version = get(args.url, "/system_stats")["system"]["comfyui_version"]
    every = get(args.url, "/object_info")
    foreign = [name for name, info in every.items() if info["python_module"].startswith("custom_nodes")]
    if foreign:
        raise SystemExit(f"ComfyUI runs with custom nodes ({foreign[0]}); start it with --disable-all-custom-nodes")
    lists = []
    classes = {name: a_class(info, lists) for name, info in sorted(every.items()) if not is_api(info)}
    api = sorted(name for name, info in every.items() if is_api(info))
    folders = {spec["models"] for c in classes.values() for spec in c.get("in", {}).values() if isinstance(spec, dict) and "models" in spec}
    if not {"checkpoints", "loras", "vae"} <= folders:
        raise SystemExit("ComfyUI does not see the marker files; start it as `core-classes.py prepare` says")

    def compact(value):
        return json.dumps(value, separators=(",", ":"), allow_nan=False)

    lines = ["{", f'"comfyui":{compact(version)},', f'"commit":{compact(args.commit)},', f'"date":{compact(args.date)},']
    lines += [f'"api":{compact(api)},', '"lists":[', ",\n".join(map(compact, lists)), "],", '"classes":{']
    lines += [",\n".join(f"{compact(name)}:{compact(made)}" for name, made in classes.items()), "}", "}"]
    (HERE / "core-classes.json").write_text("\n".join(lines) + "\n")

    kinds = {}
    for info in every.values():
        for section in ("required", "optional"):
            for name, spec in (info["input"].get(section) or {}).items():
                kinds.setdefault(name, set()).add(spec[0] if isinstance(spec[0], str) else "COMBO")
    # Weights of single blocks (names with a dot) are a hundred names that nobody sets from outside.
    floats = sorted(name for name, kind in kinds.items() if "FLOAT" in kind and "INT" not in kind and "." not in name)
    (HERE / "float-inputs.txt").write_text("".join(f"{name}\n" for name in floats))
    print(f"ComfyUI {version}: {len(classes)} classes, {len(api)} of outside services, {len(lists)} lists, {len(floats)} names of fractions")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("prepare")
    verb.add_argument("dir")
    verb.set_defaults(run=prepare)
    verb = verbs.add_parser("write")
    verb.add_argument("--url", required=True)
    verb.add_argument("--commit", required=True, help="the full commit of ComfyUI that is running")
    verb.add_argument("--date", default=datetime.date.today().isoformat(), help="default: today")
    verb.set_defaults(run=write)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
