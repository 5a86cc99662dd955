"""Which files are read, from file lists like those of real repositories."""

import json

import pytest

from scanner.weights.index import MAX_INDEX, shards_of_index
from scanner.weights.selection import WeightGroup, choose_files
from schemas.errors import FormatError
from schemas.refs import FileRef, RepoRef
from schemas.results import FailureKind

REPO = RepoRef("org/model", "0123456789abcdef0123456789abcdef01234567")


def file_of(path, content=None):
    return FileRef(REPO, path, 1000, content or f"id of {path}")


def tree(*paths):
    return [file_of(path) for path in paths]


def read(selection):
    """{component: [paths]} of a selection."""
    return {group.component: [file.path for file in group.files] for group in selection.groups}


def reasons(selection):
    return {file.path: reason for file, reason in selection.left_out}


def shards(count, stem="model", folder=""):
    return [f"{folder}{stem}-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]


def test_a_plain_model():
    selection = choose_files(tree("README.md", "config.json", "model.safetensors", "tokenizer.json"))
    (group,) = selection.groups
    assert group == WeightGroup(
        component=None, files=(file_of("model.safetensors"),), config=file_of("config.json")
    )
    assert selection.left_out == ()


def test_an_index_beats_the_single_file():
    index = "model.safetensors.index.json"
    selection = choose_files(tree("model.safetensors", index, *shards(2), "extra.safetensors"))
    assert read(selection) == {None: shards(2)}
    assert selection.groups[0].index == file_of(index)
    assert reasons(selection) == {
        "model.safetensors": "the index decides which shards are read",
        "extra.safetensors": "the index decides which shards are read",
    }


def test_an_index_may_name_the_single_file_or_a_subfolder():
    index = "model.safetensors.index.json"
    assert read(choose_files(tree(index, "model.safetensors"))) == {None: ["model.safetensors"]}
    selection = choose_files(tree(index, "parts/x1.safetensors", "parts/x2.safetensors"))
    assert read(selection) == {None: ["parts/x1.safetensors", "parts/x2.safetensors"]}
    assert selection.left_out == ()


def test_two_indices_are_two_groups():
    selection = choose_files(
        tree(
            "model.safetensors.index.json",
            *shards(2),
            "draft.safetensors.index.json",
            *shards(2, "draft"),
        )
    )
    assert read(selection) == {None: shards(2), "draft": shards(2, "draft")}


def test_an_index_without_any_weights_below_it_is_ignored():
    selection = choose_files(tree("old/model.safetensors.index.json", "new/model.safetensors"))
    assert read(selection) == {"new": ["new/model.safetensors"]}
    assert selection.groups[0].index is None


def test_shards_without_an_index_must_be_complete():
    assert read(choose_files(tree(*shards(3)))) == {None: shards(3)}
    with pytest.raises(FormatError, match="expected 3 shards, found 2") as caught:
        choose_files(tree(*shards(3)[:2]))
    assert caught.value.kind is FailureKind.INDEX_MISMATCH


@pytest.mark.parametrize(
    ("names", "best"),
    [
        (["model.fp16", "model", "model.fp32", "model.bf16"], "model"),
        (["model.fp16", "model.fp32", "model.bf16"], "model.fp32"),
        (["model.fp16", "model.bf16"], "model.bf16"),
        (["model.non_ema", "model.fp16"], "model.fp16"),
        (["model.fp16.non_ema", "model.non_ema"], "model.fp16.non_ema"),
        (["my_net_fp16", "my_net"], "my_net"),
        (["my_net-bf16", "my_net-fp8"], "my_net-bf16"),
    ],
)
def test_variants(names, best):
    selection = choose_files(tree(*(f"{name}.safetensors" for name in names)))
    assert read(selection) == {None: [f"{best}.safetensors"]}
    assert set(reasons(selection)) == {f"{name}.safetensors" for name in names if name != best}


@pytest.mark.parametrize("stem", ["model.fp16-{}-of-{}", "model-{}-of-{}.fp16"])
def test_sharded_variants_of_both_spellings(stem):
    parts = [f"{stem.format(f'{i:05d}', '00002')}.safetensors" for i in (1, 2)]
    selection = choose_files(tree("model.safetensors.index.fp16.json", *parts))
    assert read(selection) == {None: parts}
    assert selection.groups[0].index == file_of("model.safetensors.index.fp16.json")


def test_no_file_is_lost_when_two_names_mean_the_same():
    selection = choose_files(tree("model.fp16.safetensors", "model_fp16.safetensors"))
    assert read(selection) == {None: ["model.fp16.safetensors"]}
    assert set(reasons(selection)) == {"model_fp16.safetensors"}


def test_the_original_layout_is_a_copy_beside_library_names():
    selection = choose_files(
        tree(
            "model.safetensors",
            "consolidated.safetensors",
            "original/model.safetensors",
            "original/consolidated.00.pth",
        )
    )
    assert read(selection) == {None: ["model.safetensors"]}
    left = reasons(selection)
    assert "original layout" in left["consolidated.safetensors"]
    assert "original layout" in left["original/model.safetensors"]
    assert left["original/consolidated.00.pth"] == "a pickle; pickles are never opened"


def test_the_original_layout_is_a_copy_of_library_names_in_a_subfolder():
    selection = choose_files(tree("hf/model.safetensors", "original/model.safetensors"))
    assert read(selection) == {"hf": ["hf/model.safetensors"]}


def test_the_original_layout_is_read_when_it_is_all_there_is():
    assert read(choose_files(tree("consolidated.safetensors", "params.json"))) == {
        None: ["consolidated.safetensors"]
    }
    assert read(choose_files(tree("original/model.safetensors"))) == {
        "original": ["original/model.safetensors"]
    }


def test_checkpoints_exports_and_trainer_state_are_left_out():
    aside = [
        "checkpoint-500/model.safetensors",
        "runs/a/model.safetensors",
        "onnx/model.safetensors",
        "openvino_model.safetensors",
        "flax_model.safetensors",
        "tf_model.safetensors",
        "optimizer.safetensors",
    ]
    selection = choose_files(
        tree("model.safetensors", "optimizer.pt", "training_args.bin", "onnx/model.onnx", *aside)
    )
    assert read(selection) == {None: ["model.safetensors"]}
    assert set(reasons(selection)) == set(aside)


def test_where_only_checkpoints_are_there_the_last_is_read():
    index = "checkpoint-1000/model.safetensors.index.json"
    last = shards(2, folder="checkpoint-1000/")
    selection = choose_files(
        tree("checkpoint-500/model.safetensors", "checkpoint-90/model.safetensors", index, *last)
    )
    assert read(selection) == {"checkpoint-1000": last}
    assert selection.groups[0].index == file_of(index)
    assert len(selection.left_out) == 2


def test_odd_names_and_lone_subfolders_are_taken():
    assert read(choose_files(tree("my-finetune_v2.safetensors"))) == {None: ["my-finetune_v2.safetensors"]}
    assert read(choose_files(tree("hf/weights/model.safetensors"))) == {
        "hf/weights": ["hf/weights/model.safetensors"]
    }
    assert read(choose_files(tree("a.safetensors", "b.safetensors", "vae/model.safetensors"))) == {
        "a": ["a.safetensors"],
        "b": ["b.safetensors"],
        "vae": ["vae/model.safetensors"],
    }


def test_a_root_model_leaves_subfolders_out():
    selection = choose_files(tree("model.safetensors", "int4/model.safetensors", "odd.safetensors"))
    assert read(selection) == {None: ["model.safetensors"]}
    assert reasons(selection) == {
        "int4/model.safetensors": "in a subfolder that is no component of the model",
        "odd.safetensors": "not a file the library would load",
    }


def test_sentence_transformer_modules_belong_to_the_model():
    selection = choose_files(
        tree("modules.json", "model.safetensors", "2_Dense/model.safetensors", "old/model.safetensors")
    )
    assert read(selection) == {None: ["model.safetensors"], "2_Dense": ["2_Dense/model.safetensors"]}


def test_a_diffusers_pipeline_is_its_components():
    selection = choose_files(
        tree(
            "model_index.json",
            "v1-5-pruned.safetensors",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "unet/diffusion_pytorch_model.non_ema.safetensors",
            "vae/diffusion_pytorch_model.fp16.safetensors",
            "text_encoder/model.safetensors",
            "text_encoder_2/model.safetensors.index.json",
            *shards(2, folder="text_encoder_2/"),
            "scheduler/scheduler_config.json",
        )
    )
    assert read(selection) == {
        "text_encoder": ["text_encoder/model.safetensors"],
        "text_encoder_2": shards(2, folder="text_encoder_2/"),
        "unet": ["unet/diffusion_pytorch_model.safetensors"],
        "vae": ["vae/diffusion_pytorch_model.fp16.safetensors"],
    }
    unet = next(group for group in selection.groups if group.component == "unet")
    assert unet.config == file_of("unet/config.json")
    assert reasons(selection)["v1-5-pruned.safetensors"] == "a single-file copy of the pipeline's components"


def test_adapters_carry_their_config_and_stand_beside_a_model():
    paths = ["adapter_config.json", "adapter_model.safetensors", "config.json"]
    (adapter,) = choose_files(tree(*paths)).groups
    assert adapter.adapter_config == file_of("adapter_config.json")
    model, adapter = choose_files(tree(*paths, "model.safetensors")).groups
    assert [file.path for file in model.files] == ["model.safetensors"]
    assert model.adapter_config is None
    assert [file.path for file in adapter.files] == ["adapter_model.safetensors"]
    assert adapter.adapter_config == file_of("adapter_config.json")


def test_equal_bytes_are_read_once():
    selection = choose_files(
        [
            FileRef(REPO, "b/model.safetensors", 1000, "git-1", "sha"),
            FileRef(REPO, "a/model.safetensors", 1000, "git-2", "sha"),
            FileRef(REPO, "c/model.safetensors", 1000, "git-3", "other"),
        ]
    )
    assert read(selection) == {"a": ["a/model.safetensors"], "c": ["c/model.safetensors"]}
    assert reasons(selection) == {"b/model.safetensors": "the same bytes as a/model.safetensors"}


def test_a_copied_sharded_model_goes_as_a_whole_or_not_at_all():
    def copy(folder, contents):
        parts = shards(2, folder=folder)
        return [
            file_of(f"{folder}model.safetensors.index.json"),
            *(file_of(part, content) for part, content in zip(parts, contents, strict=True)),
        ]

    whole = choose_files(copy("a/", ["1", "2"]) + copy("b/", ["1", "2"]))
    assert read(whole) == {"a": shards(2, folder="a/")}
    half = choose_files(copy("a/", ["1", "2"]) + copy("b/", ["1", "3"]))
    assert read(half) == {"a": shards(2, folder="a/"), "b": shards(2, folder="b/")}


@pytest.mark.parametrize(
    ("paths", "kind"),
    [
        ([], FailureKind.NO_WEIGHTS),
        (["README.md", "config.json"], FailureKind.NO_WEIGHTS),
        (["optimizer.safetensors", "training_args.bin"], FailureKind.NO_WEIGHTS),
        (["onnx/model.onnx", "openvino/openvino_model.bin"], FailureKind.NO_WEIGHTS),
        (["pytorch_model.bin", "q4.gguf"], FailureKind.SKIPPED_PICKLE),
        (["original/consolidated.00.pth"], FailureKind.SKIPPED_PICKLE),
        (["model-q4.gguf", "README.md"], FailureKind.SKIPPED_GGUF),
        (["../other/model.safetensors"], FailureKind.UNSAFE_PATH),
    ],
)
def test_nothing_to_read_says_why(paths, kind):
    with pytest.raises(FormatError) as caught:
        choose_files(tree(*paths))
    assert caught.value.kind is kind
    assert kind.sentence in caught.value.message


@pytest.mark.parametrize(
    "path",
    [
        "../model.safetensors",
        "a/../model.safetensors",
        "./model.safetensors",
        "/model.safetensors",
        "a//model.safetensors",
        "a\\model.safetensors",
        "a\nb.safetensors",
        "a\x9bb.safetensors",
        "x" * 2000 + ".safetensors",
    ],
)
def test_unsafe_names_are_never_read(path):
    selection = choose_files(tree("model.safetensors", path))
    assert read(selection) == {None: ["model.safetensors"]}
    assert reasons(selection)[path].startswith("an unsafe file name")


def test_every_weight_file_is_read_or_has_a_reason_whatever_the_order():
    paths = [
        "model.safetensors",
        "model.fp16.safetensors",
        "x.safetensors",
        "sub/model.safetensors",
        "sub/consolidated.safetensors",
        "checkpoint-1/model.safetensors",
        "original/a.safetensors",
        "pytorch_model.bin",
        "q8.gguf",
    ]
    forward, backward = choose_files(tree(*paths)), choose_files(tree(*reversed(paths)))
    assert forward == backward
    assert {file for group in forward.groups for file in group.files} | {
        file for file, _ in forward.left_out
    } == set(tree(*paths))


GROUP = WeightGroup(
    component=None,
    files=tuple(tree(*shards(2))),
    index=file_of("model.safetensors.index.json"),
)


def index_of(weight_map):
    return json.dumps({"metadata": {"total_size": 1.5e10}, "weight_map": weight_map}).encode()


def test_exactly_the_shards_of_the_index():
    first, second = shards(2)
    index = shards_of_index(index_of({"a": second, "b": first, "c": second}), GROUP, GROUP.files)
    assert index.files == (file_of(first), file_of(second))
    assert index.weight_map == {"a": file_of(second), "b": file_of(first), "c": file_of(second)}
    assert index.problems == ()


def test_a_shard_the_index_does_not_name_is_a_problem():
    index = shards_of_index(index_of({"a": shards(2)[0]}), GROUP, GROUP.files)
    assert index.files == (file_of(shards(2)[0]),)
    assert index.problems == (f"{REPO} model.safetensors.index.json does not name '{shards(2)[1]}'",)


def test_shards_are_relative_to_the_folder_of_the_index():
    group = WeightGroup(component="unet", files=(), index=file_of("unet/model.safetensors.index.json"))
    files = tree("unet/deep/x.safetensors", "deep/x.safetensors")
    assert shards_of_index(index_of({"a": "deep/x.safetensors"}), group, files).files == (files[0],)


@pytest.mark.parametrize(
    "name",
    [
        "../../../private/resolve/main/model.safetensors",
        "a/../model.safetensors",
        "./model.safetensors",
        "/model.safetensors",
        "a//model.safetensors",
        "https://host/model.safetensors",
        "model.safetensors?x=.safetensors",
        "a%2f..%2fmodel.safetensors",
        "a\\model.safetensors",
        "model.safetensors\n",
        "model.bin",
        "",
    ],
)
def test_an_index_cannot_leave_the_repository(name):
    with pytest.raises(FormatError, match="expected a relative path") as caught:
        shards_of_index(index_of({"a": name}), GROUP, [*GROUP.files, file_of(name)])
    assert caught.value.kind is FailureKind.UNSAFE_PATH
    assert caught.value.file == "model.safetensors.index.json"
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("index_json", "says"),
    [
        (index_of({"a": "gone.safetensors"}), "names the shard gone.safetensors, which is not in"),
        (index_of({}), "has no weight_map"),
        (b"{}", "has no weight_map"),
        (b'{"weight_map":[]}', "has no weight_map"),
        (b'{"weight_map":{"a":1}}', "maps 'a' to a int"),
        (b'{"weight_map":{"a":null}}', "maps 'a' to a NoneType"),
        (b"[]", "it holds a list"),
        (b"{", "is not a JSON object"),
        (b"\xff{}", "utf-8"),
        (b"[" * 200_000, "recursion"),
        (b'{"a":1' + b"0" * 5000 + b"}", "is not a JSON object"),
        (b"[" * 2_000_001, "too many entries"),
        (b" " * (MAX_INDEX + 1), "expected at most 64000000"),
    ],
    ids=range(13),
)
def test_a_broken_index_is_refused(index_json, says):
    with pytest.raises(FormatError) as caught:
        shards_of_index(index_json, GROUP, GROUP.files)
    assert caught.value.kind is FailureKind.INDEX_MISMATCH
    assert says in caught.value.message
    assert caught.value.message.startswith(f"{REPO} model.safetensors.index.json")


def test_an_index_that_is_a_git_lfs_pointer():
    with pytest.raises(FormatError, match="git lfs pull") as caught:
        shards_of_index(b"version https://git-lfs.github.com/spec/v1\n", GROUP, GROUP.files)
    assert caught.value.kind is FailureKind.LFS_POINTER
