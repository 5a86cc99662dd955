"""What only a GPU can show: the same numbers, streams that do not disturb one another, memory that runs out."""

import numpy as np
import pytest
import torch

from scanner.api import scan
from scanner.llama import llama_7b
from scanner.spectra.device import Card, Solved, card
from scanner.spectra.eigen import DenseWeights, solve
from scanner.spectra.tailfit import fit_tail
from schemas.errors import NumericsError
from schemas.results import FailureKind

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine"),
]


def layers():
    rng = np.random.default_rng(0)
    shapes = [(1024, 1024), (2048, 512), (512, 2048), (1024, 1024), (300, 300), (128, 128, 3, 3)]
    return {f"w{k}": rng.standard_normal(shape).astype(np.float32) for k, shape in enumerate(shapes)}


def test_a_gpu_has_the_rows_of_the_cpu():
    found = {row.tensor: row for row in scan(layers(), device="cuda")}
    for row in scan(layers()):
        assert found[row.tensor].alpha == pytest.approx(row.alpha, rel=1e-9)
        assert found[row.tensor].lambda_max == pytest.approx(row.lambda_max, rel=1e-12)
        assert found[row.tensor].w_kurtosis == pytest.approx(row.w_kurtosis, rel=1e-9, abs=1e-9)
    assert "cuda" in {row.device for row in found.values()}


def test_single_precision_differs_and_is_named():
    weights = DenseWeights(next(iter(layers().values())))
    [answer] = card("cuda").solve([weights], single=True)
    assert isinstance(answer, Solved)
    assert answer.spectrum.method == "gram_f32"
    assert fit_tail(answer.spectrum).alpha == pytest.approx(fit_tail(solve(weights)).alpha, rel=1e-3)


def test_memory_that_runs_out_is_an_error_of_its_own_kind_and_leaves_the_card_usable():
    side = 1 + int((torch.cuda.mem_get_info()[1] / 8) ** 0.5)
    with pytest.raises(NumericsError) as caught:
        Card("cuda").solve([DenseWeights(np.broadcast_to(np.float32(1), (side, side)))])
    assert caught.value.kind is FailureKind.OUT_OF_MEMORY
    [answer] = card("cuda").solve([DenseWeights(layers()["w0"])])
    assert isinstance(answer, Solved)


@pytest.mark.slow
def test_all_of_llama_2_7b():
    assert llama_7b("cuda") > 0
