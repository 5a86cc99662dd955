"""Folders made to hurt: each ends as rows or as a failure by name, at once, and costs its neighbours nothing."""

import json
import os
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
from running import ended, finish, rows, run_cli, start_cli
from safetensors.numpy import save_file

MODEL = "model.safetensors"
TENSORS = {
    "l.0.attention.query_key_value.weight": np.eye(120, 40, dtype="f4"),
    "l.0.mlp.qweight": np.ones((8, 16), "i4"),
    "l.0.mlp.scales": np.ones((2, 16), "f2"),
    "l.0.mlp.qzeros": np.ones((2, 2), "i4"),
    "embed.weight": np.eye(50, 40, dtype="f4"),
}


def weights(folder):
    save_file(TENSORS, folder / MODEL)


def pipe(folder, name):
    os.mkfifo(folder / name)


def listener(folder, name):
    here = os.getcwd()
    os.chdir(folder)  # the path of a socket has a short limit
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(name)
    finally:
        os.chdir(here)


def link(folder, name, to="/nowhere"):
    (folder / name).symlink_to(to)


def folder_named(folder, name):
    (folder / name).mkdir()


NO_FILE = {
    "a pipe": pipe,
    "a socket": listener,
    "a folder": folder_named,
    "a dangling link": link,
    "a link to itself": lambda folder, name: link(folder, name, name),
    "an endless device": lambda folder, name: link(folder, name, "/dev/zero"),
}


def scanned(folder, lake):
    """Rows by status, and failures, of a scan."""
    ran = run_cli("scan", folder, "--lake", lake)
    assert ran.code in (0, 3), ran.err
    counts = rows(lake, "SELECT status, count(*) AS n FROM layers GROUP BY ALL")
    return {row["status"]: row["n"] for row in counts}, rows(lake, "FROM failures")


@pytest.fixture
def home(tmp_path) -> Path:
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    return folder


def test_what_only_has_the_name_of_a_file_is_a_failure_by_that_name_and_never_waited_for(tmp_path):
    """Beside weights it costs itself; instead of them, or of a config that may state a scale, the model."""
    places = {"beside": "other.safetensors", "instead": MODEL, "adapter": "adapter_config.json"}
    for kind, make in NO_FILE.items():
        for place, name in places.items():
            folder = tmp_path / "zoo" / place / kind
            folder.mkdir(parents=True)
            make(folder, name)
            if place == "beside":
                weights(folder)
            if place == "adapter":
                factors = {"x.lora_A.weight": np.eye(4, 8), "x.lora_B.weight": np.eye(8, 4)}
                save_file(factors, folder / "adapter_model.safetensors")
    lake = tmp_path / "lake"
    with ended(
        start_cli("scan", *(tmp_path / "zoo").iterdir(), "--lake", lake, "--engine", "local")
    ) as process:
        ran = finish(process)
    assert ran.code == 3, ran.err
    failures = rows(lake, "SELECT repo_id, kind, file FROM failures")
    assert {(row["repo_id"], row["kind"], row["file"]) for row in failures} == {
        (f"{place}/{kind}", "read_error", name) for kind in NO_FILE for place, name in places.items()
    }
    counts = rows(lake, "SELECT repo_id, count(*) FILTER (status = 'ok') AS n FROM layers GROUP BY ALL")
    assert {row["repo_id"]: row["n"] for row in counts} == {f"beside/{kind}": 2 for kind in NO_FILE}


CONFIGS = {
    "not a number": '{"hidden_size": NaN, "num_attention_heads": Infinity, "model_type": "gpt_neox"}',
    "huge numbers": '{"hidden_size": 1e999, "num_attention_heads": %s}' % ("9" * 4000),
    "too many digits": '{"hidden_size": %s}' % ("9" * 5000),
    "a long name": json.dumps({"architectures": ["A" * 100_000]}),
    "deep": "[" * 200_000,
    "latin-1": b'{"architectures": ["B\xe9rt"]}',
    "other types": json.dumps(
        {
            "architectures": {"a": 1},
            "model_type": ["x"],
            "quantization_config": [1],
            "text_config": 7,
            "vision_config": "x",
            "attn_config": [],
            "tie_word_embeddings": "yes",
            "hidden_size": "40",
        }
    ),
    "below zero": '{"hidden_size": -40, "num_attention_heads": 0, "model_type": "gpt_neox"}',
    "escapes": r'{"architectures": ["\u001b[31mX\u202e\ud800"], "model_type": "\u0000"}',
    "a layout that cannot be": '{"quantization_config": {"quant_method": "gptq", "bits": 1e9, "group_size": -7}}',
    "a method that is a list": '{"quantization_config": {"quant_method": ["fp8"], "weight_block_size": [0, -1]}}',
}


def test_no_config_keeps_the_dense_weights_beside_it_from_being_read(tmp_path):
    for name, text in CONFIGS.items():
        folder = tmp_path / "zoo/owner" / name
        folder.mkdir(parents=True)
        weights(folder)
        (folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    ran = run_cli("scan", tmp_path / "zoo", "--lake", tmp_path / "lake")
    assert ran.code == 0, ran.err
    dense = "tensor IN ('l.0.attention.query_key_value.weight', 'embed.weight')"
    found = rows(tmp_path / "lake", f"SELECT repo_id FROM layers WHERE status = 'ok' AND {dense}")
    assert [row["repo_id"] for row in found].count("owner/deep") == 2
    assert len(found) == 2 * len(CONFIGS)
    assert rows(tmp_path / "lake", "SELECT max(len(architecture)) AS n FROM models")[0]["n"] <= 128


@pytest.mark.parametrize(
    "shard", ["/etc/x.safetensors", "../name/model.safetensors", "a\0.safetensors", "", "a/"]
)
def test_an_index_reaches_nothing_outside_its_folder(home, shard, tmp_path):
    weights(home)
    (home / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"embed.weight": shard}}))
    _, (failure,) = scanned(home, tmp_path / "lake")
    assert (failure["kind"], failure["file"]) == ("unsafe_path", "model.safetensors.index.json")


@pytest.mark.parametrize("name", [b"mod\xffel.safetensors", b"mo\n\x1b[31mdel.safetensors"])
def test_a_file_name_that_is_no_text_leaves_its_neighbours_alone(home, name, tmp_path):
    weights(home)
    try:
        os.link(home / MODEL, os.fsencode(home) + b"/" + name)
    except OSError:
        pytest.skip("this file system takes no such name")
    counts, failures = scanned(home, tmp_path / "lake")
    assert (counts, failures) == ({"ok": 2, "skipped": 3}, [])
    (kept,) = rows(tmp_path / "lake", "SELECT left_out FROM repositories")
    assert len(kept["left_out"]) == 1
    assert kept["left_out"][0].isprintable()
    assert "unsafe file name" in kept["left_out"][0]


def test_a_folder_name_that_is_no_text_is_escaped(tmp_path):
    folder = os.fsencode(tmp_path) + b"/owner/na\xffme"
    try:
        os.makedirs(folder)
    except OSError:
        pytest.skip("this file system takes no such name")
    weights(Path(os.fsdecode(folder)))
    (Path(os.fsdecode(folder)) / "config.json").symlink_to("/nowhere")
    ran = run_cli("scan", tmp_path / "owner", "--lake", tmp_path / "lake")
    assert ran.code == 3
    assert rows(tmp_path / "lake", "SELECT repo_id FROM failures") == [{"repo_id": r"owner/na\xffme"}]


def test_folders_that_contain_themselves_end(home, tmp_path):
    weights(home)
    link(home, "self", home)
    link(home, "b", home / "c")
    link(home, "c", home / "b")
    counts, failures = scanned(home, tmp_path / "lake")
    assert (counts, failures) == ({"ok": 2, "skipped": 3}, [])


def test_shapes_of_ones_and_noughts_are_rows(home, tmp_path):
    shapes = [
        (1, 1),
        (1, 5000),
        (5000, 1),
        (0, 7),
        (1, 1, 1, 1, 1, 1),
        (3, 1, 1, 1),
        (40, 0, 40),
        (64, 2),
        (),
    ]
    save_file({f"t{i}": np.ones(shape, "f4") for i, shape in enumerate(shapes)}, home / MODEL)
    counts, failures = scanned(home, tmp_path / "lake")
    assert (sum(counts.values()), failures) == (len(shapes), [])


def test_a_tebibyte_that_is_promised_and_not_there_is_a_bad_header(home, tmp_path):
    text = json.dumps(
        {"a": {"dtype": "F32", "shape": [1 << 20, 1 << 18], "data_offsets": [0, 1 << 40]}}
    ).encode()
    (home / MODEL).write_bytes(struct.pack("<Q", len(text)) + text)
    counts, (failure,) = scanned(home, tmp_path / "lake")
    assert (counts, failure["kind"]) == ({}, "bad_header")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", [MODEL, "config.json", "README.md"])
def test_a_file_that_may_not_be_read_is_named(home, name, tmp_path):
    weights(home)
    (home / name).touch()
    (home / name).chmod(0)
    _, (failure,) = scanned(home, tmp_path / "lake")
    assert failure["kind"] == "read_error"
    assert f"{name}: Permission denied" in failure["message"]


@pytest.mark.parametrize("kind", ["a pipe", "a socket", "an endless device"])
def test_a_target_that_is_neither_file_nor_folder_is_the_users_error(home, kind, tmp_path):
    NO_FILE[kind](home, MODEL)
    ran = run_cli("scan", home / MODEL, "--lake", tmp_path / "lake")
    assert ran.code == 1
    assert ran.err.strip().endswith("is neither a file nor a folder, but a pipe, a socket or a device")
