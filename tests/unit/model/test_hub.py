"""Addresses on Hugging Face: what they name, how a model is fetched and put there, and what can go wrong."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from hub_stand_in import TOKEN, StandIn, commit_id, serving
from posewarper.errors import ConfigError, ModelError, OutputError, PosewarperWarning
from posewarper.model import hub as ours
from posewarper.model.hub import HubAddress, find_model, is_address, is_model, read_address, upload, within
from posewarper.runs import describe_inputs

FILES = {"posewarper_json": b"{}", "model_safetensors": b"weights"}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The stand-in, and Hugging Face's client pointed to it, with an empty cache."""
    with serving() as stand_in:
        cache = tmp_path / "cache"
        place = {"endpoint": stand_in.url, "cache_dir": cache}
        download, known = huggingface_hub.hf_hub_download, huggingface_hub.try_to_load_from_cache
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", partial(download, **place))
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", partial(known, cache_dir=cache))
        api = partial(huggingface_hub.HfApi, endpoint=stand_in.url, token=TOKEN)
        monkeypatch.setattr(huggingface_hub, "HfApi", api)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        ours._fetch.cache_clear()
        yield stand_in
        ours._fetch.cache_clear()


@pytest.fixture
def no_network(monkeypatch):
    """Let every question to Hugging Face fail at once, as where there is no network."""

    def cut(hub: StandIn) -> None:
        ours._fetch.cache_clear()
        download = huggingface_hub.hf_hub_download

        def offline(*arguments, local_files_only: bool = False, **more):
            # The client asks nobody about a commit that is in the cache.
            if not local_files_only and len(more.get("revision") or "") != 40:
                raise huggingface_hub.errors.LocalEntryNotFoundError("no network")
            return download(*arguments, local_files_only=True, **more)

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)

    return cut


def test_addresses_name_a_repository_and_perhaps_a_revision():
    assert read_address("hf:ann/fly") == HubAddress("ann/fly")
    assert read_address("hf:ann/fly-2.1_b@v1.0") == HubAddress("ann/fly-2.1_b", "v1.0")
    assert str(read_address(Path("hf:ann/fly@refs/pr/3"))) == "hf:ann/fly@refs/pr/3"
    assert read_address("hf:ann\\fly") == HubAddress("ann/fly")  # as Windows writes paths
    assert is_address(Path("hf:ann/fly")) and not is_address("model.pt")
    for wrong in (
        "hf:",
        "hf:fly",
        "hf:ann/",
        "hf:ann/fly@",
        "hf:a/b/c",
        "hf:ann/../x",
        "hf:an n/fly",
        "ann/fly",
    ):
        with pytest.raises(ConfigError, match="no address of a model"):
            read_address(wrong)


def test_what_lies_here_is_left_where_it_is(tmp_path):
    assert find_model("some/model.pt") == Path("some/model.pt")
    assert not is_model(tmp_path)
    (tmp_path / "posewarper.json").touch()
    assert is_model(tmp_path)


def test_a_model_is_fetched_once_and_found_again_without_a_network(hub, no_network, recwarn):
    commit = hub.add("ann/fly", **FILES)
    found = find_model("hf:ann/fly")
    assert (found / "posewarper.json").read_bytes() == b"{}"
    assert (found / "model.safetensors").read_bytes() == b"weights"
    assert found.name == commit
    facts = describe_inputs(model="hf:ann/fly")["model"]
    assert (facts["path"], facts["revision"]) == ("hf:ann/fly", commit)
    asked = len(hub.requests)
    assert find_model("hf:ann/fly") == found and len(hub.requests) == asked
    # A card beside them, which other programs may have fetched, makes it no other model.
    (found / "README.md").write_text("card")
    assert describe_inputs(model="hf:ann/fly")["model"] == facts
    no_network(hub)
    assert not recwarn.list
    with pytest.warns(PosewarperWarning, match="taken from the cache"):
        assert find_model("hf:ann/fly") == found
    assert len(hub.requests) == asked


def test_a_newer_version_is_taken_and_an_older_one_can_be_named(hub):
    first = hub.add("ann/fly", **FILES)
    assert (find_model("hf:ann/fly") / "model.safetensors").read_bytes() == b"weights"
    hub.add("ann/fly", posewarper_json=b"{ }", model_safetensors=b"newer")
    ours._fetch.cache_clear()
    assert (find_model("hf:ann/fly") / "model.safetensors").read_bytes() == b"newer"
    assert (find_model(f"hf:ann/fly@{first}") / "model.safetensors").read_bytes() == b"weights"


def test_models_of_transformers_are_fetched_too(hub, no_network):
    hub.add("usyd/vitpose", config_json=b"{}", model_safetensors=b"v", pytorch_model_bin=b"pickle")
    found = find_model("hf:usyd/vitpose")
    assert sorted(path.name for path in found.iterdir()) == ["config.json", "model.safetensors"]
    no_network(hub)
    with pytest.warns(PosewarperWarning, match="taken from the cache"):
        assert find_model("hf:usyd/vitpose") == found


def test_what_is_not_there_is_told_apart(hub, no_network, monkeypatch):
    hub.add("ann/text", README_md=b"nothing else")
    hub.add("ann/half", posewarper_json=b"{}")
    hub.add("ann/secret", **FILES)
    hub.private.add("ann/secret")
    for address, message in (
        ("hf:ann/none", "no such model on Hugging Face, or it is private"),
        ("hf:ann/secret", "no such model on Hugging Face, or it is private"),
        ("hf:ann/text", "holds no model that posewarper can read"),
        ("hf:ann/text@v9", "no such revision"),
        ("hf:ann/half", "holds no weights"),
    ):
        with pytest.raises(ModelError, match=message) as caught:
            find_model(address)
        assert str(caught.value).startswith(address) and caught.value.fix
    no_network(hub)
    with pytest.raises(ModelError, match="cannot be downloaded"):
        find_model("hf:ann/other")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE forbids"):
        find_model("hf:ann/other")


def test_an_answer_that_does_not_come_is_not_waited_for(hub, monkeypatch):
    hub.add("ann/fly", **FILES)
    found, download = find_model("hf:ann/fly"), huggingface_hub.hf_hub_download
    ours._fetch.cache_clear()

    def hang(*arguments, local_files_only: bool = False, **more):
        if not local_files_only and more.get("revision") is None:
            threading.Event().wait(10)
            raise OSError("too late")
        return download(*arguments, local_files_only=local_files_only, **more)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hang)
    monkeypatch.setattr(ours, "_ASK_SECONDS", 0.05)
    monkeypatch.setattr(ours, "_FIRST_SECONDS", 0.05)
    with pytest.warns(PosewarperWarning, match="does not answer"):
        assert find_model("hf:ann/fly") == found
    with pytest.raises(ModelError, match=r"cannot be downloaded[\s\S]*not ended in 0 s"):
        find_model("hf:ann/other")


def test_a_download_that_does_not_end_is_given_up():
    with pytest.raises(TimeoutError):
        within(0.05, threading.Event().wait)
    assert within(5.0, lambda: "path") == "path"


def test_files_are_uploaded_in_one_commit_and_never_over_others_unasked(hub, tmp_path):
    files = [tmp_path / "posewarper.json", tmp_path / "model.safetensors"]
    files[0].write_bytes(b"{}")
    files[1].write_bytes(b"weights")
    address = HubAddress("ann/fly")
    options = {"private": True, "message": "Add fly"}
    seen = upload(address, files, overwrite=False, **options)
    assert seen.endswith("/ann/fly")
    assert hub.private == {"ann/fly"}
    assert [list(commit) for commit in hub.repositories["ann/fly"]] == [
        [".gitattributes"],
        [".gitattributes", "posewarper.json", "model.safetensors"],
    ]
    files[1].write_bytes(b"newer")
    with pytest.raises(OutputError, match="holds files already") as caught:
        upload(address, files, overwrite=False, **options)
    assert "--overwrite" in caught.value.fix
    upload(address, files, overwrite=True, **options)
    commit, now = hub.find("ann/fly", "main")
    assert (commit, now["model.safetensors"]) == (commit_id("ann/fly", 2), b"newer")


def test_who_may_not_write_is_told_what_to_do(hub, monkeypatch, tmp_path):
    api = huggingface_hub.HfApi
    monkeypatch.setattr(huggingface_hub, "HfApi", partial(api, token="hf_of_somebody_else"))
    with pytest.raises(OutputError, match="cannot put this model") as caught:
        upload(HubAddress("ann/fly"), [], private=False, overwrite=False, message="Add")
    assert "HF_TOKEN" in caught.value.fix
    assert "ann/fly" not in hub.repositories
