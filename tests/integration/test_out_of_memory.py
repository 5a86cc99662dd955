"""A matrix for which there is no memory costs its own row, wherever memory ends."""

import json
import sys

import numpy as np
import pytest
from running import finish, start_python
from safetensors.numpy import save_file

SCANS = """
import json, resource, sys
from pathlib import Path
from scanner.api import scan

def found(folder):
    scanned = scan(Path(folder))
    return {row.tensor: row.status_reason or row.status for row in scanned}, [f.kind for f in scanned.failures]

def limit(room):
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + room if room else resource.RLIM_INFINITY, resource.RLIM_INFINITY))

large, warm, *rooms = sys.argv[1:]
found(warm)
for room in rooms:
    limit(int(room) << 20)
    print(json.dumps(found(large)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the size of a process from /proc")
def test_a_matrix_without_memory_is_a_failure_by_that_name_and_no_other_row_is_lost(tmp_path):
    """12 MiB end in reading its 10.6 MB, 30 in numpy's Gram matrix of 42 MB, 60 in a copy of that."""
    for name, side in (("large", 2305), ("warm", 2049)):
        (tmp_path / name).mkdir()
        tensors = {"a": np.eye(64), "b": np.full((side, side), 0.5, "f2"), "c": np.eye(64)}
        save_file(tensors, tmp_path / name / "model.safetensors")
    ran = finish(start_python(SCANS, tmp_path / "large", tmp_path / "warm", 12, 30, 60, 0))
    assert ran.code == 0, ran.err
    *short, whole = map(json.loads, ran.text.splitlines())
    lost = {"a": "ok", "b": "out_of_memory", "c": "ok"}, ["out_of_memory"]
    assert [tuple(one) for one in short] == [lost] * 3
    assert tuple(whole) == ({"a": "ok", "b": "ok", "c": "ok"}, [])
