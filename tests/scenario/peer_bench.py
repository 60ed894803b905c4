"""The inference engine's own serving-benchmark client, from the package index, run without the engine.

fetch() has pip download the engine's source distribution (PIN, about 20 MB, checked by its hash) and keeps the few files of the client in .venv. pip
unpacks an archive before it asks the package for its metadata, which this package cannot give without a GPU toolkit: that failure is expected, the
unpacked files are what is wanted. pip's own configuration (index, proxy, certificates) applies.

As a program: peer_bench.py CLIENT_DIR PROMPTS [option of the client...] runs the client with the prompts of a JSON Lines file ("prompt", "prompt_tokens",
"output_tokens"). What the client imports from the rest of the engine (tokenizer, data sets, helpers) is replaced by the stand-ins below; sending,
timing, statistics and report are its own, unchanged."""
import argparse
import importlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import types

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME, VERSION = "vllm", "0.14.1"
PIN = f"{NAME}=={VERSION} --hash=sha256:c7c6d0a729d29e70ac10baacbc7186930da24f8ae34f60451330527ff0be84ac\n"
FILES = ("__init__.py", "serve.py", "lib/__init__.py", "lib/endpoint_request_func.py", "lib/ready_checker.py", "lib/utils.py")


class Unavailable(Exception):
    """The package cannot be had here; the text says why."""


def fetch(cache=ROOT / ".venv" / "peer-bench"):
    """Directory of the client's files, downloaded at the first call."""
    home = cache / f"{NAME}-{VERSION}"
    if (home / "complete").exists():
        return home
    with tempfile.TemporaryDirectory(prefix="peer-bench-") as tmp:
        tmp = pathlib.Path(tmp)
        (tmp / "pin.txt").write_text(PIN)
        (tmp / "unpacked").mkdir()
        pip = [sys.executable, "-m", "pip", "download", "--no-cache-dir", "--no-deps", "--no-build-isolation", "--no-clean", "--require-hashes",
               "--no-binary", NAME, "-r", str(tmp / "pin.txt"), "-d", str(tmp / "download")]
        try:
            run = subprocess.run(pip, env={**os.environ, "TMPDIR": str(tmp / "unpacked")}, capture_output=True, text=True, timeout=240)
        except subprocess.TimeoutExpired as e:
            raise Unavailable(f"pip did not download {NAME} {VERSION} within {e.timeout:.0f} s") from e
        found = list((tmp / "unpacked").glob(f"*/*/{NAME}/benchmarks/serve.py"))
        if not found:
            lines = [line for line in (run.stderr + run.stdout).splitlines() if line.strip()]
            errors = [line for line in lines if "ERROR" in line] or lines or ["no output"]
            raise Unavailable(f"pip cannot download {NAME} {VERSION}: {errors[-1]}")
        for name in FILES:
            target = home / NAME / "benchmarks" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found[0].parent / name, target)
    (home / "complete").touch()
    return home


# --- stand-ins ---------------------------------------------------------------------------------------------------------------------------


class Sample:
    """One request, as the client wants it."""
    multi_modal_data = lora_request = request_id = None

    def __init__(self, line):
        self.prompt, self.prompt_len, self.expected_output_len = line["prompt"], line["prompt_tokens"], line["output_tokens"]


def module(name, **members):
    m = types.ModuleType(name)
    m.__dict__.update(members)
    sys.modules[name] = m
    parent, _, last = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], last, m)
    return m


def no_tokenizer(*_args, **_kw):
    """The server tells the number of tokens in `usage`; nothing is counted here."""
    return None


def add_dataset_options(parser):
    """The options of the client's data sets that its main part reads."""
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-prompts", type=int, default=1000)
    parser.add_argument("--dataset-name", default="custom")


def load(home, samples):
    """The client's main module, with `samples` as its data set."""
    root = module(NAME)
    root.__path__ = [str(home / NAME)]
    module(f"{NAME}.tokenizers", TokenizerLike=object, get_tokenizer=no_tokenizer)
    module(f"{NAME}.utils").__path__ = []
    module(f"{NAME}.utils.gc_utils", freeze_gc_heap=lambda: None)
    module(f"{NAME}.utils.network_utils", join_host_port=lambda host, port: f"{host}:{port}")
    module(f"{NAME}.benchmarks.datasets", SampleRequest=Sample, add_dataset_parser=add_dataset_options,
           get_samples=lambda args, tokenizer: samples[:args.num_prompts])
    return importlib.import_module(f"{NAME}.benchmarks.serve")


def main():
    home, prompts, options = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:]
    samples = [Sample(json.loads(line)) for line in prompts.read_text().splitlines()]
    serve = load(home, samples)
    parser = argparse.ArgumentParser()
    serve.add_cli_args(parser)
    serve.main(parser.parse_args(["--num-prompts", str(len(samples)), *options]))


if __name__ == "__main__":
    main()
