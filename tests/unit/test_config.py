"""Configurations: profiles, files, and the fingerprint that names them."""

import json
from dataclasses import asdict, fields, is_dataclass, replace

import numpy as np
import pytest

from schemas.config import (
    PROFILES,
    MatrixRules,
    ScanConfig,
    SpectrumRules,
    Stages,
    TailRules,
    Thresholds,
    WorkLimits,
    from_toml,
    profile_config,
)
from schemas.errors import ConfigError


@pytest.fixture
def toml(tmp_path):
    def write(text):
        path = tmp_path / "scan.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_profiles():
    assert profile_config("default") == ScanConfig()
    assert [profile_config(name).profile for name in PROFILES] == list(PROFILES)
    assert len({profile_config(name).fingerprint() for name in PROFILES}) == len(PROFILES)
    full = profile_config("full").stages
    assert (full.erg, full.alternatives, full.null_model) == (True, True, True)
    compat = profile_config("weightwatcher")
    assert (compat.profile, compat.matrices.depthwise) == ("weightwatcher", True)
    assert (compat.matrices.min_side, compat.matrices.depthwise) == (1, True)


def test_an_unknown_profile_names_the_known_ones():
    with pytest.raises(ConfigError, match=f"unknown profile 'fast'; choose one of {', '.join(PROFILES)}"):
        profile_config("fast")


def test_a_file_overrides_only_what_it_names(toml):
    config = from_toml(toml("[tail]\nmin_tail = 12\n[thresholds]\nks_max = 1\n"))
    assert config.tail == TailRules(min_tail=12)
    assert config.thresholds.ks_max == 1.0
    assert replace(config, tail=TailRules(), thresholds=ScanConfig().thresholds) == ScanConfig()


def test_a_file_may_choose_its_profile(toml):
    config = from_toml(toml('profile = "weightwatcher"\n[spectrum]\nblock = 64\n'))
    assert config.matrices == profile_config("weightwatcher").matrices
    assert config.spectrum == SpectrumRules(block=64)
    assert config.matrices.depthwise


def test_an_empty_file_is_the_profile(toml):
    assert from_toml(toml(""), "weightwatcher") == profile_config("weightwatcher")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tail]\nmin_tale = 12", r"tail\.min_tale"),
        ("tails = 1", "tails"),
        ("tail = 3", "tail"),
        ("[tail]\nmin_tail = 'many'", r"tail\.min_tail: .*got 'many'"),
        ("[thresholds]\nks_max = nan", r"thresholds\.ks_max"),
        ("[matrices]\nconv_mode = 'best'", r"matrices\.conv_mode"),
        ("profile = 'fast'", "unknown profile 'fast'"),
        ("[tail\n", "is not TOML"),
    ],
)
def test_a_wrong_key_or_value_is_named(toml, text, message):
    with pytest.raises(ConfigError, match=message):
        from_toml(toml(text))


def test_every_wrong_key_is_named_at_once(toml):
    with pytest.raises(ConfigError, match=r"a: .*; b: "):
        from_toml(toml("a = 1\nb = 2\n"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read config .*none\.toml: No such file"):
        from_toml(tmp_path / "none.toml")


def leaves(config, path=()):
    for field in fields(config):
        value = getattr(config, field.name)
        yield from (
            leaves(value, (*path, field.name)) if is_dataclass(value) else [((*path, field.name), value)]
        )


def changed(config, path, value):
    name, *rest = path
    return replace(config, **{name: changed(getattr(config, name), rest, value) if rest else value})


OTHERS = {
    "profile": "weightwatcher",
    "conv_mode": "slice",
    "method": "svd",
    "fix_fingers": "clip_xmax",
    "xmax": "max",
    "base": "off",
    "compared_with": "owner/base@commit",
    "precision": "float64",
}


@pytest.mark.parametrize("path", [path for path, _ in leaves(ScanConfig())], ids=".".join)
def test_every_setting_is_in_the_fingerprint(path):
    value = dict(leaves(ScanConfig()))[path]
    other = OTHERS.get(path[-1]) or (not value if isinstance(value, bool) else value + 1)
    assert changed(ScanConfig(), path, other).fingerprint() != ScanConfig().fingerprint()


def test_equal_configs_have_equal_names():
    config, other = (ScanConfig(matrices=MatrixRules(conv_mode="slice")) for _ in range(2))
    assert config.to_json() == other.to_json()
    assert config.fingerprint() == other.fingerprint()
    assert len(config.fingerprint()) == 16
    assert int(config.fingerprint(), 16) >= 0


def test_how_work_is_cut_is_no_part_of_the_config():
    assert not {f.name for f in fields(WorkLimits)} & {path[-1] for path, _ in leaves(ScanConfig())}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Thresholds(under_trained_alpha=6), Thresholds(under_trained_alpha=6.0)),
        (Thresholds(ks_max=0.5), Thresholds(ks_max=np.float32(0.5))),
        (Thresholds(n_tail_min=30), Thresholds(n_tail_min=30.0)),
    ],
)
def test_a_setting_has_one_text_however_its_number_is_written(one, other):
    texts = {ScanConfig(thresholds=limits).to_json() for limits in (one, other)}
    assert len(texts) == 1


def test_what_is_another_setting_has_another_text():
    assert ScanConfig(stages=Stages(erg=1)).to_json() == ScanConfig().to_json()
    assert ScanConfig(thresholds=Thresholds(n_tail_min=20.5)).to_json() != ScanConfig().to_json()


@pytest.mark.parametrize("profile", PROFILES)
def test_the_text_of_a_profile_is_its_fields_as_declared(profile):
    config = profile_config(profile)
    assert config.to_json() == json.dumps(asdict(config), sort_keys=True, separators=(",", ":"))
