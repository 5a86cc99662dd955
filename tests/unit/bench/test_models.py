"""Which models on disk a case takes."""

import pytest

from jobs.bench.cases.models import resnet_folders
from jobs.bench.result import NotRunError


def test_the_resnets_are_those_that_were_published(tmp_path):
    for name in ("two/resnet56-cifar10", "one/resnet20-cifar10-run-1", "derived/resnet56-fault", "one/vgg"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "derived/resnet56-cifar10-nan").mkdir()
    found = [folder.relative_to(tmp_path).as_posix() for folder in resnet_folders(tmp_path)]
    assert found == ["one/resnet20-cifar10-run-1", "two/resnet56-cifar10"]


def test_without_resnets_nothing_is_measured(tmp_path):
    with pytest.raises(NotRunError, match="--models DIR"):
        resnet_folders(tmp_path)
