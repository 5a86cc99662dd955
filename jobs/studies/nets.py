"""Small networks trained on scikit-learn's digits, on the CPU and from one seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from jobs.studies.study import NotAvailable
from schemas.results import FloatArray

State = Mapping[str, Any]

MIDDLE = "2.weight"
"""The 384 x 256 matrix between the hidden layers."""
_WIDTHS = (64, 256, 384, 10)
_TRAIN = 1400


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Stochastic gradient descent with momentum .9 on the cross entropy.

    samples: how many of the training set are used, None for all. shuffled: whether labels are permuted.
    """

    batch: int
    lr: float = 0.01
    epochs: int = 15
    decay: float = 0.0
    samples: int | None = None
    shuffled: bool = False


@dataclass(frozen=True, slots=True)
class _Digits:
    x: Any
    y: Any
    test_x: Any
    test_y: Any


def untrained(seed: int = 0) -> State:
    """Weights as torch initialises them."""
    import torch

    torch.manual_seed(seed)
    return {name: value.detach().clone() for name, value in _network().state_dict().items()}


def trained(start: State, how: Training, seed: int = 0) -> State:
    """Weights after training from `start`; the order of the samples is drawn from `seed`."""
    import torch

    net, data = _network(), _digits()
    net.load_state_dict(dict(start))
    generator = torch.Generator().manual_seed(seed)
    x, y = data.x[: how.samples], data.y[: how.samples]
    y = y[torch.randperm(len(y), generator=generator)] if how.shuffled else y
    rule = torch.optim.SGD(net.parameters(), lr=how.lr, momentum=0.9, weight_decay=how.decay)
    with _one_thread():
        for _ in range(how.epochs):
            order: Any = torch.randperm(len(x), generator=generator)
            for batch in order.split(how.batch):
                rule.zero_grad()
                loss: Any = torch.nn.functional.cross_entropy(net(x[batch]), y[batch])
                loss.backward()
                rule.step()
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def accuracy(state: State) -> float:
    """Share of the digits kept back that are read right."""
    import torch

    net, data = _network(), _digits()
    net.load_state_dict(dict(state))
    with torch.no_grad():
        return float((net(data.test_x).argmax(1) == data.test_y).float().mean())


def edited(state: State, matrix: FloatArray) -> State:
    """`state` with another middle matrix."""
    import torch

    return {**state, MIDDLE: torch.from_numpy(np.ascontiguousarray(matrix, dtype=np.float32))}


def sized(batch: int) -> Training:
    """The training of the sweep over batch sizes: fewer passes over the data where each takes many steps."""
    return Training(batch=batch, epochs=10 if batch <= 2 else 15)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order, whatever the machine; small matrices gain nothing from more threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _network() -> Any:
    from torch import nn

    layers: list[nn.Module] = []
    for rows, columns in pairwise(_WIDTHS):
        layers += [nn.Linear(rows, columns), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@cache
def _digits() -> _Digits:
    """The digits in a fixed random order, scaled to [-.5, .5]. Raises NotAvailable without scikit-learn."""
    import torch

    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise NotAvailable("pip install 'hubspectra[studies]'") from error
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    x = torch.from_numpy((images[order] / 16 - 0.5).astype(np.float32))
    y = torch.from_numpy(labels[order].astype(np.int64))
    return _Digits(x[:_TRAIN], y[:_TRAIN], x[_TRAIN:], y[_TRAIN:])
