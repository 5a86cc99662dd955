"""OpenBLAS's kernels are chosen only where the machine is known to run them, and never over a choice."""

import pytest

from jobs.engine.blas import CORETYPE, prefer_wide_kernels

FLAGS = "fpu avx2 avx512f avx512cd avx512bw avx512dq avx512vl"


def chosen(tmp_path, vendor="AuthenticAMD", flags=FLAGS, environ=None):
    cpuinfo = tmp_path / "cpuinfo"
    one = f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n"
    cpuinfo.write_text(f"{one}\n{one}")
    environ = {} if environ is None else environ
    prefer_wide_kernels(environ, cpuinfo)
    return environ.get(CORETYPE)


def test_amd_with_avx512_runs_it(tmp_path):
    assert chosen(tmp_path) == "SkylakeX"


def test_a_choice_stands(tmp_path):
    assert chosen(tmp_path, environ={CORETYPE: "Zen"}) == "Zen"


@pytest.mark.parametrize("missing", FLAGS.split()[2:])
def test_without_all_instructions_there_is_no_choice(tmp_path, missing):
    assert chosen(tmp_path, flags=FLAGS.replace(missing, "")) is None


def test_other_makers_are_left_to_openblas(tmp_path):
    assert chosen(tmp_path, vendor="GenuineIntel") is None


@pytest.mark.parametrize("text", ["", "nonsense", "\n\n", "vendor_id : AuthenticAMD"])
def test_an_unreadable_description_is_no_choice(tmp_path, text):
    environ = {}
    (tmp_path / "cpuinfo").write_text(text)
    prefer_wide_kernels(environ, tmp_path / "cpuinfo")
    prefer_wide_kernels(environ, tmp_path / "absent")
    assert environ == {}
