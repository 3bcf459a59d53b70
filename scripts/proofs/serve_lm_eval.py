"""lm-eval's `local-chat-completions` against `a2r serve`: 20 problems of data/tiny, answered by the pair.

    pip install 'lm-eval[api]'
    python scripts/proofs/serve_lm_eval.py

lm-eval sends four requests at a time over HTTP, and scores the boxed answer with its own `exact_match`.
`--url` names a running endpoint; without it the pair of data/tiny is started.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
TASK = {
    "task": "a2r_tiny",
    "dataset_path": "json",
    "output_type": "generate_until",
    "test_split": "test",
    "doc_to_text": "{{problem}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 112, "temperature": 0.0, "do_sample": False},
    "filter_list": [
        {
            "name": "boxed",
            "filter": [
                {"function": "regex", "regex_pattern": r"\\boxed\{([^{}]*)\}", "group_select": -1},
                {"function": "take_first"},
            ],
        }
    ],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


@contextmanager
def endpoint(url: str) -> Iterator[str]:
    """The base URL of an endpoint; one is started if none is named."""
    if url:
        yield url
        return
    command = [sys.executable, "-m", "a2r_train.cli", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        try:
            line = next(line for line in process.stderr if " at http://" in line)
            yield line.rpartition(" at ")[2].strip()
        finally:
            process.terminate()
            process.communicate()


def evaluate(program: str, url: str, limit: int, folder: Path) -> dict[str, float]:
    """lm-eval's result for the endpoint. Raises CalledProcessError if lm-eval fails."""
    rows = (ROOT / "data/tiny/test.jsonl").read_text(encoding="utf-8").splitlines()[:limit]
    (folder / "test.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    task = {**TASK, "dataset_kwargs": {"data_files": {"test": str(folder / "test.jsonl")}}}
    (folder / "a2r_tiny.yaml").write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
    asked = (
        f"model=a2r,base_url={url}/chat/completions,num_concurrent=4,max_retries=1,tokenized_requests=False"
    )
    command = [program, "--model", "local-chat-completions", "--model_args", asked, "--tasks", "a2r_tiny"]
    command += ["--include_path", str(folder), "--apply_chat_template", "--output_path", str(folder / "out")]
    environment = {**os.environ, "OPENAI_API_KEY": os.environ.get("A2R_API_KEY", "none")}
    subprocess.run(command, check=True, env=environment, cwd=folder)
    (written,) = (folder / "out").rglob("results_*.json")
    results = json.loads(written.read_text(encoding="utf-8"))
    samples = results["n-samples"]["a2r_tiny"]["effective"]
    return {"problems": samples, "exact_match": results["results"]["a2r_tiny"]["exact_match,boxed"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--url", default="", help="base URL of a running endpoint, such as http://localhost:8000/v1"
    )
    parser.add_argument("--limit", type=int, default=20, help="number of problems")
    parser.add_argument("--lm_eval", default="lm_eval", help="the lm-eval program")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, endpoint(arguments.url) as url:
        print(json.dumps(evaluate(arguments.lm_eval, url, arguments.limit, Path(folder))))


if __name__ == "__main__":
    main()
