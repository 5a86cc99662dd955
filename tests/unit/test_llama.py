"""The workload of the benchmark is Llama-2-7B's, and it runs."""

from math import prod

from scanner.llama import llama_7b, shapes


def test_the_matrices_hold_the_parameters_of_the_model():
    """6,738,415,616 parameters, of which 65 norms of 4096."""
    assert len(shapes()) == 226
    assert sum(map(prod, shapes())) + 65 * 4096 == 6_738_415_616


def test_it_runs_on_any_device():
    assert llama_7b("cpu:0", shrink=64) > 0
