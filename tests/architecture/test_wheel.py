"""What is shipped: three packages with their SQL, and nothing else."""

import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    builder = pytest.importorskip(
        "hatchling.builders.wheel", reason="hatchling builds the wheel: pip install hatchling"
    )
    folder = tmp_path_factory.mktemp("wheel")
    (path,) = builder.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        yield {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_just_the_three_packages(wheel):
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"schemas", "scanner", "jobs"}
    assert len(tops) == 4


def test_every_source_file_is_shipped(wheel):
    for package in ("schemas", "scanner", "jobs"):
        for path in (ROOT / package).rglob("*"):
            if path.suffix in (".py", ".sql"):
                name = path.relative_to(ROOT).as_posix()
                assert wheel[name] == path.read_bytes()


def test_the_views_are_shipped(wheel):
    shipped = {name for name in wheel if name.startswith("schemas/sql/")}
    assert shipped == {f"schemas/sql/{path.name}" for path in (ROOT / "schemas/sql").glob("*.sql")}
    assert "schemas/sql/models.sql" in shipped


def test_nothing_else_is_shipped(wheel):
    suffixes = {Path(name).suffix for name in wheel if ".dist-info/" not in name}
    assert suffixes <= {".py", ".sql", ".html", ".css", ".js", ".svg", ".typed"}
    assert not [name for name in wheel if "test" in name.split("/")[-1].split("_")[0]]


def test_the_command_and_the_licence_are_in_the_metadata(wheel):
    (entry,) = [text for name, text in wheel.items() if name.endswith(".dist-info/entry_points.txt")]
    assert b"hubspectra = jobs.cli:main" in entry
    assert [name for name in wheel if name.endswith("LICENSE")]
    (metadata,) = [text for name, text in wheel.items() if name.endswith(".dist-info/METADATA")]
    assert b"Name: hubspectra" in metadata
