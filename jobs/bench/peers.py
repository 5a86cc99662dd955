"""The peers, called as their users call them. They are an extra; without it a case says how to get it."""

import contextlib
import importlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jobs.bench.result import NotRunError
from schemas.results import FloatArray

EXTRA = "pip install 'hubspectra[peers]'"

StateDict = Mapping[str, Any]
Fit = tuple[float, float, float]
"""(alpha, xmin, D)."""


def require_weightwatcher() -> None:
    """Import WeightWatcher. Raises NotRunError where it is not installed."""
    _weightwatcher("weightwatcher")


def details(state: StateDict, **options: Any) -> Any:
    """The frame of WeightWatcher(model).analyze(plot=False) for the 2-D and 4-D weights of `state`."""
    module = _weightwatcher("weightwatcher")
    with _quiet():
        return module.WeightWatcher(model=as_module(state)).analyze(plot=False, **options)


def as_module(state: StateDict) -> Any:
    """A torch module whose Linear and Conv2d layers hold the weights of `state`, dots of names as slashes."""
    import torch

    root = torch.nn.Module()
    for name, tensor in state.items():
        if name.endswith(".weight") and tensor.ndim in (2, 4):
            root.add_module(name.removesuffix(".weight").replace(".", "/"), _layer(tensor))
    return root


def tensor_name(layer: str) -> str:
    """The tensor behind a row of the frame."""
    return layer.replace("/", ".") + ".weight"


def weightwatcher_fit(evals: FloatArray) -> Fit:
    """WeightWatcher's own power-law fit, WWFit."""
    fit = _weightwatcher("weightwatcher.WW_powerlaw").pl_fit(evals, pl_package="ww")
    return float(fit.alpha), float(fit.xmin), float(fit.D)


def powerlaw_fit(evals: FloatArray) -> Fit:
    """The powerlaw package with its range of alpha opened: by default it caps alpha at 3."""
    law = _powerlaw(evals).power_law
    return float(law.alpha), float(law.xmin), float(law.D)


def powerlaw_rivals(evals: FloatArray, xmin: float, names: tuple[str, ...]) -> dict[str, float]:
    """Log-likelihoods of the distributions `names` of the powerlaw package on evals >= xmin."""
    with _quiet():
        fit = _powerlaw(evals, xmin=xmin)
        return {name: float(getattr(fit, name).loglikelihood) for name in names}


def weightwatcher_singular_values(weights: Any) -> FloatArray:
    """Singular values as WeightWatcher computes them: the whole matrix as float64, scipy's gesdd."""
    from scipy.linalg import svd

    return np.asarray(svd(weights.astype(float), compute_uv=False))


def _powerlaw(evals: FloatArray, **options: Any) -> Any:
    import powerlaw

    with _quiet():
        return powerlaw.Fit(evals, verbose=False, parameter_ranges={"alpha": [1, None]}, **options)


def _layer(tensor: Any) -> Any:
    import torch

    weight = torch.as_tensor(tensor).float()
    if weight.ndim == 2:
        layer: Any = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    else:
        out, into, *kernel = weight.shape
        layer = torch.nn.Conv2d(into, out, (kernel[0], kernel[1]), bias=False)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    return layer


def _weightwatcher(name: str) -> Any:
    """A module of WeightWatcher, which prints and logs, and on CUDA would round weights to float16."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        with _quiet():
            module = importlib.import_module(name)
    except ImportError as error:
        raise NotRunError(EXTRA) from error
    logging.getLogger("weightwatcher").setLevel(logging.CRITICAL)
    return module


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Peers print and warn about what they meet; that is theirs."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
    ):
        warnings.simplefilter("ignore")
        yield
