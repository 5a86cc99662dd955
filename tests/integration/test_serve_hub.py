"""`hubspectra serve-hub` as a process of its own: a client reads from it, a signal ends it."""

import signal
import socket
import urllib.error
import urllib.request

import pytest
from huggingface_hub import HfApi, hf_hub_download
from running import ended, finish, run_cli, start_cli
from safetensors.numpy import load_file


def endpoint_of(process) -> str:
    """The address in the first line; then the server answers."""
    return process.stdout.readline().rsplit(" ", 1)[1].strip()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_the_models_of_a_folder_and_ends_on_a_signal(zoo, tmp_path, stop):
    with ended(start_cli("serve-hub", zoo, "--port", 0)) as process:
        endpoint = endpoint_of(process)
        assert endpoint.startswith("http://127.0.0.1:")
        assert {model.id for model in HfApi(endpoint).list_models(author="acme")} == {"acme/one", "acme/two"}
        file = hf_hub_download("acme/one", "model.safetensors", endpoint=endpoint, cache_dir=tmp_path)
        expected = load_file(zoo / "acme/one/model.safetensors")
        assert {name: values.tobytes() for name, values in load_file(file).items()} == {
            name: values.tobytes() for name, values in expected.items()
        }
        ran = run_cli("scan", "acme/one", "--endpoint", endpoint, "--lake", tmp_path / "lake")
        process.send_signal(stop)
        ended_with = finish(process)
    assert ran.code == 0
    assert (ended_with.code, ended_with.err) == (0, "")
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(endpoint, timeout=1)


def test_a_port_that_is_taken_and_a_folder_that_is_not_there(zoo):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = run_cli("serve-hub", zoo, "--port", port)
    assert ran.code == 1
    assert f"can't listen on 127.0.0.1 port {port}" in ran.err
    assert run_cli("serve-hub", zoo / "nothing").code == 2
